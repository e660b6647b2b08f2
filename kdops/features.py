"""Feature maps of any model by dotted layer name: FeatureTap and FeatureStream.

A tap registers forward hooks and keeps the last value of every named layer. Nothing of the model
is changed, several taps may sit on one model, and closing a tap leaves no hook and no reference.
"""

from __future__ import annotations

import difflib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

PLACES = ("output", "input", "pre_activation")
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Hardswish, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Threshold,
)  # fmt: skip

Store = dict[str, dict[torch.device, tuple[Tensor, int]]]


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


class FeatureTap:
    """Features of the named layers at the last forward pass.

    >>> with FeatureTap(model, ["layer1", "layer2.0.relu"]) as tap:
    ...     logits = model(images)
    ...     first, second = tap.features

    layers: dotted names as in model.named_modules(), "" for the model itself. at, one for all or
    one per layer: "output"; "input" (first positional tensor); "pre_activation", the input of the
    last activation module (nn.ReLU and its like) that runs inside the layer, or of the layer
    itself if it is one, saved before an in-place activation overwrites it. A layer that returns
    a tuple or dict gives its first tensor. A layer called several times in one forward keeps the
    last call.

    Wrappers: DataParallel (replicas are gathered on the first replica's device) and
    DistributedDataParallel are looked through. torch.compile: tap the model *before* the first
    call of the compiled model, since compiled code does not look for hooks added later; then
    fullgraph compilation works and features carry gradients. Several threads may not share a tap.
    """

    def __init__(
        self, model: nn.Module, layers: str | Sequence[str], *, at: str | Sequence[str] = "output"
    ) -> None:
        self.layers = [layers] if isinstance(layers, str) else list(layers)
        places = [at] * len(self.layers) if isinstance(at, str) else list(at)
        if not self.layers or len(places) != len(self.layers) or set(places) - set(PLACES):
            raise ValueError(
                f"FeatureTap: {len(self.layers)} layers, at={at!r}: give one or more layers and "
                f"for each one of {PLACES}"
            )
        self._keys = [f"{name}:{place}" for name, place in zip(self.layers, places, strict=True)]
        self._store: Store = {}
        found = [find_layer(model, name) for name in self.layers]
        handles: list[RemovableHandle] = []
        self._finalizer = weakref.finalize(self, _remove, handles)
        for key, layer, place in zip(self._keys, found, places, strict=True):
            _check_place(key, layer, place)
        for key, layer, place in zip(self._keys, found, places, strict=True):
            handles += _hook(layer, place, key, self._store)
        wrapper = getattr(model, "_orig_mod", model)
        if isinstance(wrapper, nn.DataParallel):  # the number of replicas may change every call
            store = self._store
            handles.append(wrapper.register_forward_pre_hook(lambda _m, _args: store.clear()))

    @property
    def features(self) -> list[Tensor]:
        """One tensor per layer, in the order given."""
        return [self._value(key) for key in self._keys]

    def __getitem__(self, layer: str) -> Tensor:
        return self._value(self._keys[self.layers.index(layer)])

    def _value(self, key: str) -> Tensor:
        by_device = self._store.get(key)
        name = key.rpartition(":")[0]
        if not by_device:
            if not self._finalizer.alive:
                raise RuntimeError(f"FeatureTap: closed; read {name!r} inside the with block")
            raise RuntimeError(
                f"FeatureTap: nothing recorded at {name!r}; call the model while the tap is open, "
                "check that its forward reaches the layer, and tap a compiled model before its "
                "first call"
            )
        values = []
        for tensor, version in by_device.values():
            if version >= 0 and tensor._version != version:
                raise RuntimeError(
                    f"FeatureTap: the tensor at {name!r} was overwritten by a later in-place "
                    "operation; tap the next layer, or use at='pre_activation'"
                )
            values.append(tensor)
        if len(values) == 1:
            return values[0]
        order = sorted(by_device, key=lambda device: device.index or 0)
        return torch.cat([by_device[d][0].to(order[0]) for d in order])

    def clear(self) -> None:
        """Forget the recorded tensors (and the graph they hold), keep the hooks."""
        self._store.clear()

    def close(self) -> None:
        """Remove the hooks and forget the tensors."""
        self._finalizer()
        self._store.clear()

    def __enter__(self) -> FeatureTap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class FeatureStream:
    """The teacher's features over a loader, walked as often as needed: food for prepare().

    >>> method.prepare(FeatureStream(teacher, ["layer1", "layer2"], loader), epochs=40)

    Yields lists of detached tensors, the teacher in inference mode and without gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        loader: Iterable[Any],
        *,
        at: str | Sequence[str] = "output",
    ) -> None:
        self.model, self.layers, self.loader, self.at = model, layers, loader, at

    def __iter__(self) -> Iterator[list[Tensor]]:
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        training = self.model.training
        self.model.eval()
        try:
            with FeatureTap(self.model, self.layers, at=self.at) as tap:
                for batch in self.loader:
                    images = batch[0] if isinstance(batch, (tuple, list)) else batch
                    with torch.no_grad():
                        self.model(images.to(device, non_blocking=True))
                    yield [x.detach() for x in tap.features]
        finally:
            self.model.train(training)


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def _activations(layer: nn.Module) -> list[nn.Module]:
    return [m for m in layer.modules() if isinstance(m, ACTIVATIONS)]


def _check_place(key: str, layer: nn.Module, place: str) -> None:
    if place == "pre_activation" and not _activations(layer):
        raise ValueError(
            f"FeatureTap: at='pre_activation', but {key.rpartition(':')[0]!r} "
            f"({type(layer).__name__}) holds no activation module; tap the output of the layer "
            "before the activation"
        )


def _hook(layer: nn.Module, place: str, key: str, store: Store) -> list[RemovableHandle]:
    """Register the hooks of one tap; they refer to the store only, never to the tap."""
    save = _saver(key, store)
    if place == "output":
        return [layer.register_forward_hook(lambda m, _args, out: save(m, _first(out), False))]
    if place == "input":
        return [layer.register_forward_pre_hook(lambda m, args: save(m, _first(args), False))]

    def before(module: nn.Module, args: Any) -> None:
        save(module, _first(args), bool(getattr(module, "inplace", False)))

    return [m.register_forward_pre_hook(before) for m in _activations(layer)]


def _saver(key: str, store: Store) -> Callable[[nn.Module, Tensor, bool], None]:
    lock = threading.Lock()

    def save(module: nn.Module, x: Tensor, copy: bool) -> None:
        x = x.clone() if copy else x
        if torch.compiler.is_compiling():
            store[key] = {x.device: (x, -1)}
        elif getattr(module, "_is_replica", False):
            with lock:  # the replicas of DataParallel run in threads, one device each
                store.setdefault(key, {})[x.device] = (x, x._version)
        else:
            store[key] = {x.device: (x, -1 if x.is_inference() else x._version)}

    return save


def _first(value: Any) -> Tensor:
    """The first tensor of whatever a layer takes or returns."""
    if isinstance(value, Tensor):
        return value
    items = value.values() if isinstance(value, dict) else value
    if isinstance(items, Iterable):
        for item in items:
            if isinstance(item, (Tensor, dict, tuple, list)):
                return _first(item)
    raise ValueError(f"FeatureTap: found no tensor in a {type(value).__name__}")
