"""What a FeatureTap keeps of a model's forwards, and the hooks that put it there.

The hooks refer to the records only, never to the tap. Inside compiled code they write and never
read what an earlier call left: torch.compile would guard on it and compile again at every change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

Mark = list[None]  # an object of its own for every forward


class Latest:
    """The last forward of any tapped model: what tells features of an earlier batch."""

    mark: Mark | None = None


class _Thread(threading.local):
    def __init__(self) -> None:
        self.latest = Latest()


_THREAD = _Thread()


class Forward:
    """The tensors of one forward: by layer, then by device, with the version they had."""

    def __init__(self, training: bool) -> None:
        self.values: dict[str, dict[torch.device, tuple[Tensor, int]]] = {}
        self.training = training
        self.read = False
        self.read_at: Mark | None = None  # the latest forward at the time of the first reading
        self.awaits_backward: list[bool] = [False]

    def unused(self, layers: int) -> bool:
        """Whole, with a graph that no backward has used, and never read."""
        return self.awaits_backward[0] and not self.read and len(self.values) == layers


class Records:
    """The last `calls` forwards, the newest at the end."""

    def __init__(self, layers: int, calls: int) -> None:
        self.layers = layers
        self.latest = _THREAD.latest  # of the thread that made the tap: batches of others differ
        self.forwards = [Forward(False) for _ in range(calls)]
        self.lost: list[bool] = [False]  # awaits_backward of the last forward overwritten unused
        self.lock = threading.Lock()

    def clear(self) -> None:
        self.forwards = [Forward(False) for _ in self.forwards]
        self.lost = [False]

    def begin(self, training: bool) -> None:
        """The model is called: what it does not reach this time is not the previous value."""
        self.latest.mark = []
        if not torch.compiler.is_compiling():
            newest, oldest = self.forwards[-1], self.forwards[0]
            if newest.training != training:
                self.lost = [False]
            if not newest.values:  # a wrapper and its module both announce the call
                newest.training = training
                return
            if oldest.unused(self.layers) and oldest.training == training:
                self.lost = oldest.awaits_backward
        self.forwards = [*self.forwards[1:], Forward(training)]

    def save(self, key: str, module: nn.Module, x: Tensor, copy: bool) -> None:
        x = x.clone() if copy else x
        forward = self.forwards[-1]
        if torch.compiler.is_compiling():
            forward.values[key] = {x.device: (x, -1)}
            return
        entry = (x, -1 if x.is_inference() else x._version)
        if getattr(module, "_is_replica", False):
            with self.lock:  # the replicas of DataParallel run in threads, one device each
                forward.values.setdefault(key, {})[x.device] = entry
        else:
            forward.values[key] = {x.device: entry}
        forward.read_at = None
        if x.requires_grad and not forward.awaits_backward[0]:
            await_backward(x, forward)


def await_backward(x: Tensor, forward: Forward) -> None:
    """Let a backward through x say that this forward was used."""
    if torch._C._are_functorch_transforms_active():
        return
    forward.awaits_backward = waiting = [True]

    def used(_: Tensor) -> None:
        waiting[0] = False

    x.register_hook(used)


def aside() -> bool:
    """Whether this forward is none of the user's: an export, a trace, or a backward that runs a
    checkpointed part of the model again."""
    if torch.compiler.is_exporting():
        return True
    if torch.compiler.is_compiling():
        return False
    tracing = torch._C._get_tracing_state() is not None
    return tracing or torch._C._current_graph_task_id() != -1


class Hook:
    """A forward (pre-)hook of one tap. Its copy, in a copied or unpickled model, does nothing."""

    def __init__(self, records: Records | None = None, key: str = "", place: str = "") -> None:
        self.records, self.key, self.place = records, key, place

    def __call__(self, module: nn.Module, args: Any, output: Any = None) -> None:
        if self.records is None or aside():
            return
        if not self.key:
            if not getattr(module, "_is_replica", False):
                self.records.begin(module.training)
            return
        # of a layer's inputs, output is those by name: the positional ones come first
        x = first_tensor(output if self.place == "output" else (args, output))
        if torch.compiler.is_compiling() or not isinstance(x, FakeTensor):
            in_place = self.place == "pre_activation" and bool(getattr(module, "inplace", False))
            self.records.save(self.key, module, x, in_place)

    def __reduce__(self) -> tuple[Any, ...]:
        return Hook, ()

    @property
    def __name__(self) -> str:
        """torch.jit.script alone asks for it, to compile the hook's source."""
        raise AttributeError(
            "FeatureTap: torch.jit.script compiles a module's hooks and cannot compile a tap's: "
            "close the tap first (and copy the model, if you must, while no tap is open)"
        )


def first_tensor(value: Any) -> Tensor:
    """The first tensor of whatever a layer takes or returns."""
    for x in _tensors(value):
        return x
    raise ValueError(f"FeatureTap: found no tensor in a {type(value).__name__}")


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of nested dicts, dataclasses and sequences, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif is_dataclass(value):
        yield from _tensors([getattr(value, field.name) for field in fields(value)])
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
