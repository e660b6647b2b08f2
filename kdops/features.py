"""Features of any model by dotted layer name: FeatureTap, FeatureStream, list_layers, and
tokens_to_maps for models of tokens.

A tap registers forward hooks and keeps what the named layers gave. Nothing of the model is
changed, several taps may sit on one model, and closing a tap leaves no hook and no reference.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kdops._batches import mask_of, on_device, run
from kdops._layers import activations, find_layer, list_layers, unwrap
from kdops._layout import Grid, carried, check_cut, laid_out, tokens_to_maps, zeroed
from kdops._records import Forward, Hook, Records

__all__ = ["FeatureStream", "FeatureTap", "list_layers", "tokens_to_maps", "unwrap"]

PLACES = ("output", "input", "pre_activation")


class FeatureTap:
    """Features of the named layers at the last forward pass.

    >>> with FeatureTap(model, ["layer1", "layer2.0.relu"]) as tap:
    ...     logits = model(images)
    ...     first, second = tap.features

    layers: dotted names as in model.named_modules(), "" for the model itself (list_layers shows
    them). at, one for all or one per layer: "output"; "input" (its first tensor, positional ones
    before those by name); "pre_activation", the input of the last activation module (nn.ReLU and
    its like) that runs inside the layer, or of the layer itself if it is one, saved before an
    in-place activation overwrites it. A layer that returns a tuple, dict or dataclass gives its
    first tensor. A layer called several times in one forward keeps the last call.
    calls: how many forwards are kept; ``tap.calls[i]`` are the features of the i-th of them, the
    oldest first (two views: calls=2), ``tap.features`` those of the last.
    layout: what three dimensions are: "channels", a map (B, C, L), or "tokens" (B, N, D), which are
    given as maps, a view (tokens_to_maps): (B, D, N) without the prefix of so many leading tokens
    (CLS, registers), or (B, D, h, w) with a grid (h, w) or "square". Methods then need no layout.
    Features of two, four and five dimensions stay as they are.

    What is read is what belongs together, or a RuntimeError says why not:
    a layer that the last forward did not reach has no features;
    features once read may be read again until a tapped model runs, this one or another of the
    same thread: later they are those of an earlier batch (keep the list to use them longer);
    a forward whose features carry gradient, were never read and have seen no backward, followed
    by more forwards in the same mode than calls keeps, makes the next reading ambiguous.
    Forwards without gradient (evaluation, a teacher) and gradient accumulation need no thought.
    Parts of a model called by themselves are recorded, each layer's last value, and not counted.

    Wrappers: DataParallel (replicas are gathered on the first replica's device),
    DistributedDataParallel and AveragedModel (an EMA teacher, with taps of its own) are looked
    through. torch.compile: tap the model *before* the first
    call of the compiled model, since compiled code does not look for hooks added later; then
    fullgraph compilation works and features carry gradients (of two forwards before a reading the
    last counts, without a word). Checkpointed layers keep the value of the forward, not of its
    repetition. A copied, pickled or saved model has no tap; a copied tap is closed.
    torch.export, torch.jit.trace and FakeTensorMode leave no tensor behind; torch.jit.script asks
    for the tap to be closed. Several threads may not share a tap.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str],
        *,
        at: str | Sequence[str] = "output",
        calls: int = 1,
        layout: str | None = None,
        prefix: int = 0,
        grid: Grid = None,
    ) -> None:
        self.layers = [layers] if isinstance(layers, str) else list(layers)
        places = _places(len(self.layers), at)
        if calls < 1:
            raise ValueError(f"FeatureTap: calls is the number of forwards to keep, got {calls}")
        check_cut("FeatureTap", layout, prefix, grid)
        self.layout, self.prefix, self.grid = layout, prefix, grid
        self._keys = [f"{name}:{place}" for name, place in zip(self.layers, places, strict=True)]
        self._records = Records(len(set(self._keys)), calls)
        self._model = type(unwrap(model)).__name__
        found = [find_layer(model, name) for name in self.layers]
        handles: list[RemovableHandle] = []
        self._finalizer = weakref.finalize(self, _remove, handles)
        for key, layer, place in zip(self._keys, found, places, strict=True):
            _check_place(key, layer, place)
        begin, wrapper = Hook(self._records), getattr(model, "_orig_mod", model)
        if isinstance(wrapper, nn.DataParallel):  # its replicas run in threads: it counts for them
            handles.append(wrapper.register_forward_pre_hook(begin))
        handles.append(unwrap(model).register_forward_pre_hook(begin))
        for key, layer, place in zip(self._keys, found, places, strict=True):
            handles += _register(layer, Hook(self._records, key, place))

    @property
    def features(self) -> list[Tensor]:
        """One tensor per layer, in the order given."""
        return [self._value(key, self._records.forwards[-1]) for key in self._keys]

    @property
    def calls(self) -> list[list[Tensor]]:
        """The features of the last `calls` forwards, the oldest first."""
        kept = self._records.forwards
        known = sum(bool(forward.values) for forward in kept)
        if 0 < known < len(kept):
            raise RuntimeError(
                f"FeatureTap: calls={len(kept)}, but {self._model} ran {known} times"
            )
        return [[self._value(key, forward) for key in self._keys] for forward in kept]

    def __getitem__(self, layer: str) -> Tensor:
        return self._value(self._keys[self.layers.index(layer)], self._records.forwards[-1])

    def _value(self, key: str, forward: Forward) -> Tensor:
        by_device = forward.values.get(key)
        name = key.rpartition(":")[0]
        if not by_device:
            self._nothing(name)
        self._check_time(name, forward)
        values = []
        for tensor, version in by_device.values():
            if version >= 0 and tensor._version != version:
                raise RuntimeError(
                    f"FeatureTap: the tensor at {name!r} was overwritten by a later in-place "
                    "operation; tap the next layer, or use at='pre_activation'"
                )
            values.append(tensor)
        if len(values) > 1:
            order = sorted(by_device, key=lambda device: device.index or 0)
            values = [torch.cat([by_device[d][0].to(order[0]) for d in order])]
        where = f"FeatureTap: at {name!r}"
        feature = laid_out(where, values[0], self.layout, self.prefix, self.grid)
        if not torch.compiler.is_compiling():
            feature._kdops_layer = name  # type: ignore[attr-defined]  # for a method's messages
        return feature

    def _nothing(self, name: str) -> NoReturn:
        if not self._finalizer.alive:
            raise RuntimeError(
                f"FeatureTap: closed; read {name!r} inside the with block (the copy of a tap is "
                "closed too: tap the copied model)"
            )
        raise RuntimeError(
            f"FeatureTap: nothing recorded at {name!r} in the last forward; call the model while "
            "the tap is open, check that its forward reaches the layer, and tap a compiled model "
            "before its first call"
        )

    def _check_time(self, name: str, forward: Forward) -> None:
        """Refuse the features of an earlier batch, and those of one forward out of several."""
        records = self._records
        if forward.read_at is None:
            forward.read_at = records.latest.mark
        elif forward.read_at is not records.latest.mark:
            raise RuntimeError(
                f"FeatureTap: the features at {name!r} were read before, and a tapped model has "
                f"run since: they belong to an earlier batch. Call {self._model} on the present "
                "batch too, or keep the list that tap.features returned"
            )
        if records.lost[0]:
            raise RuntimeError(
                f"FeatureTap: {self._model} ran again before the features at {name!r} were read, "
                "and those of the earlier forward are lost: read tap.features after each forward, "
                "or keep several (calls=2, tap.calls), or tap.clear() before the one that counts"
            )
        for kept in records.forwards:
            kept.read = True

    def clear(self) -> None:
        """Forget the recorded tensors (and the graph they hold), keep the hooks."""
        self._records.clear()

    def close(self) -> None:
        """Remove the hooks and forget the tensors."""
        self._finalizer()
        self._records.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return _closed_tap, (self.layers,)

    def __enter__(self) -> FeatureTap:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class FeatureStream:
    """The teacher's features over a loader, walked as often as needed: food for prepare().

    >>> method.prepare(FeatureStream(teacher, ["layer1", "layer2"], loader), epochs=40)

    Yields lists of detached tensors, the teacher in inference mode and without gradient. options
    are those of FeatureTap (at, layout, prefix, grid). Of a batch that is a tuple or list the model
    gets the first part, of a dict everything by name; where that holds an attention_mask (B, N),
    the tokens which it leaves out are zero.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[str], loader: Iterable[Any], **options: Any
    ) -> None:
        self.model, self.layers, self.loader, self.options = model, layers, loader, options

    def __len__(self) -> int:
        """The loader's, or a TypeError where it does not know."""
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[Tensor]]:
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        training = self.model.training
        self.model.eval()
        try:
            with FeatureTap(self.model, self.layers, **self.options) as tap:
                for batch in self.loader:
                    batch = on_device(batch, device)
                    with torch.no_grad():
                        run(self.model, batch)
                    mask = mask_of(batch) if tap.layout == "tokens" else None
                    yield [_constant(x, mask, tap.prefix) for x in tap.features]
        finally:
            self.model.train(training)


def _constant(x: Tensor, mask: Tensor | None, prefix: int) -> Tensor:
    """x without its history; tokens that the mask leaves out are zero."""
    x = carried(x.detach(), x)
    return zeroed(x, mask[:, prefix:] != 0) if mask is not None and x.ndim > 2 else x


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def _places(count: int, at: str | Sequence[str]) -> list[str]:
    """Where to read each of so many layers."""
    places = [at] * count if isinstance(at, str) else list(at)
    if not count or len(places) != count or set(places) - set(PLACES):
        raise ValueError(
            f"FeatureTap: {count} layers, at={at!r}: give one or more layers and for each one of "
            f"{PLACES}"
        )
    return places


def _check_place(key: str, layer: nn.Module, place: str) -> None:
    if place == "pre_activation" and not activations(layer):
        raise ValueError(
            f"FeatureTap: at='pre_activation', but {key.rpartition(':')[0]!r} "
            f"({type(layer).__name__}) holds no activation module; tap the output of the layer "
            "before the activation"
        )


def _register(layer: nn.Module, hook: Hook) -> list[RemovableHandle]:
    if hook.place == "output":
        return [layer.register_forward_hook(hook)]
    if hook.place == "input":
        return [layer.register_forward_pre_hook(hook, with_kwargs=True)]
    return [m.register_forward_pre_hook(hook) for m in activations(layer)]


def _closed_tap(layers: list[str]) -> FeatureTap:
    """What copying or unpickling a tap gives: its model's copy has no hooks of it."""
    tap = FeatureTap(nn.Identity(), [""] * len(layers))
    tap.layers, tap._keys = list(layers), [f"{name}:output" for name in layers]
    tap.close()
    return tap
