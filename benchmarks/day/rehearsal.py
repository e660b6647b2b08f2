"""The emulated device for a rehearsal of the GPU day: a pytest plugin, or an import before torch.

What measures by events and graphs runs on the host's clock here and call by call, with few and
small sets of inputs: that it runs is all that its figures say.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from tests.emulator import session, torch_cuda  # before torch

assert session.missing_kernels() == []

import torch  # noqa: E402

from benchmarks.measure import gpu  # noqa: E402


class HostEvent:
    """An event that the host's clock stamps."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: HostEvent) -> float:
        return 1e3 * (later.at - self.at)


class _OnlyStream:
    """Everything is in order on the emulated device."""

    def wait_stream(self, other: _OnlyStream) -> None:
        pass


class _NoGraph:
    """A capture fails as that of a call which synchronises does."""


@contextlib.contextmanager
def _no_capture(graph: _NoGraph) -> Iterator[None]:
    raise RuntimeError("the emulated device has no CUDA graphs")
    yield


STAND_INS: dict[str, Any] = {
    "Event": HostEvent,
    "Stream": _OnlyStream,
    "current_stream": _OnlyStream,
    "stream": lambda stream: contextlib.nullcontext(),
    "CUDAGraph": _NoGraph,
    "graph": _no_capture,
}
for name, stand_in in STAND_INS.items():
    setattr(torch.cuda, name, stand_in)
torch_cuda.PROPERTIES.L2_cache_size = 1  # two sets of inputs
gpu.COPIED, gpu.MULTIPLIED, gpu.ROUND = 1 << 10, 16, 1e-6
