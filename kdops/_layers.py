"""The layers of a model by dotted name: finding one, and what there is."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from kdops._records import first_tensor

ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Hardswish, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Threshold,
)  # fmt: skip

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrap(model: nn.Module) -> nn.Module:
    """The user's module inside torch.compile, (Distributed)DataParallel and AveragedModel."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, WRAPPERS):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that dotted name; a ValueError that says what there is instead."""
    layers: dict[str, nn.Module] = dict(unwrap(model).named_modules())
    if name in layers:
        return layers[name]
    near = difflib.get_close_matches(name, list(layers), n=5, cutoff=0.6)
    hints = [f"near names: {near}"] if near else []
    hints.append(f"top-level layers: {[n for n in layers if n and '.' not in n]}")
    if stages := _stages(layers):
        hints.append(f"stages: {stages}")
    raise ValueError(
        f"FeatureTap: no layer {name!r} in {type(unwrap(model)).__name__}; {'; '.join(hints)}; "
        "kdops.features.list_layers(model, *inputs) shows all"
    )


def _stages(layers: dict[str, nn.Module]) -> list[str]:
    """'features.0 .. features.18': the outermost sequences of layers."""
    found: dict[str, str] = {}
    for name, layer in layers.items():
        children = [f"{name}.{n}" if name else n for n, _ in layer.named_children()]
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(layer, (nn.Sequential, nn.ModuleList)) and len(children) > 1 and not inside:
            found[name] = f"{children[0]} .. {children[-1]}"
    return list(found.values())[:8]


class Layer(NamedTuple):
    """A layer of list_layers; shape is None where the forward did not reach it."""

    name: str
    type: str
    shape: tuple[int, ...] | None


class Layers(list[Layer]):
    """A list of layers that prints as a table."""

    def __repr__(self) -> str:
        rows = [(n or '""', kind, str(list(shape)) if shape else "") for n, kind, shape in self]
        rows = [("name", "type", "output"), *rows]
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        return "\n".join(f"{n:<{widths[0]}}  {k:<{widths[1]}}  {s}".rstrip() for n, k, s in rows)


@torch.no_grad()
def list_layers(model: nn.Module, *inputs: Any, **named: Any) -> Layers:
    """The names that a FeatureTap knows, with type and output shape, of one forward pass.

    >>> list_layers(model, torch.randn(1, 3, 224, 224))    # prints as a table

    inputs, named: the model's arguments. It runs once, in inference mode and without gradient. Of
    an output that is a tuple, dict or dataclass the shape is that of its first tensor, which is
    what a tap gives.
    """
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(layer: nn.Module, _: Any, output: Any) -> None:
        try:
            shapes[layer] = tuple(first_tensor(output).shape)
        except ValueError:  # an output without a tensor
            shapes.pop(layer, None)

    layers = dict(unwrap(model).named_modules())
    handles = [layer.register_forward_hook(note) for layer in layers.values()]
    modes = {layer: layer.training for layer in layers.values()}
    try:
        unwrap(model).eval()(*inputs, **named)
    finally:
        for handle in handles:
            handle.remove()
        for layer, training in modes.items():
            layer.training = training
    return Layers(Layer(n, type(x).__name__, shapes.get(x)) for n, x in layers.items())


def activations(layer: nn.Module) -> list[nn.Module]:
    """The activation modules in a layer, itself included."""
    return [m for m in layer.modules() if isinstance(m, ACTIVATIONS)]
