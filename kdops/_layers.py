"""The layers of a model by dotted name: finding one, and what there is."""

from __future__ import annotations

import difflib

from torch import nn

ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Hardswish, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Threshold,
)  # fmt: skip


def unwrap(model: nn.Module) -> nn.Module:
    """The user's module inside torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(
            model, (nn.DataParallel, nn.parallel.DistributedDataParallel)
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that dotted name; a ValueError that lists near names."""
    layers: dict[str, nn.Module] = dict(unwrap(model).named_modules())
    if name in layers:
        return layers[name]
    near = difflib.get_close_matches(name, list(layers), n=5, cutoff=0.4)
    known = [n for n in layers if n and "." not in n]
    hint = f"near names: {near}" if near else f"top-level layers: {known}"
    raise ValueError(f"FeatureTap: no layer {name!r} in {type(unwrap(model)).__name__}; {hint}")


def activations(layer: nn.Module) -> list[nn.Module]:
    """The activation modules in a layer, itself included."""
    return [m for m in layer.modules() if isinstance(m, ACTIVATIONS)]
