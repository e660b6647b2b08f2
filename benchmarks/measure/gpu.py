"""Timing on a CUDA device, and the measured ceilings that floors are counted against.

A round is a pass over several input sets that together exceed the L2 cache twice, so that no call
finds its inputs there. The pass is captured as one CUDA graph where that is possible: events around
its replays then see the kernels and not the Python that launches them. What synchronises
(torch.linalg.svd does) cannot be captured and is timed launch by launch. Before every round the
sets are refilled with fresh values. harness.measure calls `measure`, for backward passes
`measure_once`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure.clock import Clock, attach
from kdops.testing import tensors_in

MOST_SETS = 64
ROUND = 2e-3  # seconds a round should last at least: events resolve half a microsecond
COPIED, MULTIPLIED = 1 << 28, 4096  # what the ceilings are measured with: floats, rows of a matrix


def set_count(size: int, cache: int) -> int:
    """Input sets of `size` bytes that exceed a cache twice, within reason."""
    return max(2, min(MOST_SETS, math.ceil(2 * cache / max(size, 1))))


def rotating(fresh: Callable[[], tuple[Any, ...]]) -> tuple[list[tuple[Any, ...]], int]:
    """Sets of arguments that together exceed the cache, and the bytes of one."""
    first = fresh()
    size = sum(t.numel() * t.element_size() for t in tensors_of(first))
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return [first, *(fresh() for _ in range(set_count(size, cache) - 1))], size


def timed(clock: Clock, run: Callable[[], object], repeats: int = 1) -> None:
    """`repeats` runs between two events; the clock moves on by the time between them."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    clock.now += start.elapsed_time(end) * 1e-3


def seconds(run: Callable[[], object], repeats: int = 1) -> float:
    """Mean time of a run."""
    clock = Clock()
    timed(clock, run, repeats)
    return clock.now / repeats


def on_events(benchmark: Any, function: Callable[..., Any]) -> Callable[..., None]:
    """The function to hand to this benchmark: events around it, not the host's clock, time it."""
    clock = attach(benchmark)
    return lambda *arguments: timed(clock, partial(function, *arguments))


def tensors_of(arguments: Iterable[Any]) -> list[Tensor]:
    """All tensors of a set of arguments, lists of cotangents included."""
    return tensors_in(list(arguments))


def refill(old: tuple[Any, ...], new: tuple[Any, ...]) -> None:
    """Fresh values in the buffers that a graph reads."""
    with torch.no_grad():
        for a, b in zip(tensors_of(old), tensors_of(new), strict=True):
            a.copy_(b)


def captured(run: Callable[[], object]) -> Callable[[], object] | None:
    """A replay of run() as one CUDA graph, or None if it cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return graph.replay


def measure(
    benchmark: Any,
    function: Callable[..., Any],
    fresh: Callable[[], tuple[Any, ...]],
    rounds: int,
) -> None:
    """Times function(*arguments); fresh() returns new arguments. The report divides by `calls`."""
    sets, size = rotating(fresh)

    def one_pass() -> None:
        for arguments in sets:
            function(*arguments)

    one_pass()
    replay = captured(one_pass)
    run = replay or one_pass
    run()
    repeats = max(1, math.ceil(ROUND / max(seconds(run), 1e-7)))
    benchmark.extra_info.update(
        calls=len(sets) * repeats,
        timing="graph" if replay else "launches",
        rotated_mb=round(len(sets) * size / 2**20, 1),
    )

    def setup() -> None:
        for arguments in sets:
            refill(arguments, fresh())
        torch.cuda.synchronize()

    def several() -> None:
        for _ in range(repeats):
            run()

    benchmark.pedantic(on_events(benchmark, several), setup=setup, rounds=rounds)


def ceilings() -> dict[str, float]:
    """Bytes per second of a large copy, FLOP per second of a large matmul, on this device."""
    x = torch.empty(COPIED, device="cuda")
    y = torch.empty_like(x)
    y.copy_(x)
    found = {"bytes": 2 * x.numel() * 4 / seconds(partial(y.copy_, x), 10)}
    del x, y
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        a = torch.randn(MULTIPLIED, MULTIPLIED, device="cuda").to(dtype)
        _ = a @ a
        name = str(dtype).removeprefix("torch.")
        found[name] = 2 * MULTIPLIED**3 / seconds(partial(torch.matmul, a, a), 10)
    return found


def measure_once(
    benchmark: Any,
    function: Callable[..., Any],
    fresh: Callable[[], tuple[Any, ...]],
    rounds: int,
) -> None:
    """The same for arguments that serve a single call, as an autograd graph does.

    Nothing can be refilled or captured: every round makes its sets anew, and launches each once.
    """
    sets, size = rotating(fresh)
    count = len(sets)
    sets.clear()
    benchmark.extra_info.update(
        calls=count, timing="launches", rotated_mb=round(count * size / 2**20, 1)
    )

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        made = [fresh() for _ in range(count)]
        torch.cuda.synchronize()
        return (made,), {}

    def one_pass(made: list[tuple[Any, ...]]) -> None:
        for arguments in made:
            function(*arguments)

    benchmark.pedantic(on_events(benchmark, one_pass), setup=setup, rounds=rounds)
