"""Rows of one table timed in rounds that they share: every row runs once in each.

A machine drifts by more than the rows of a table differ, and the first row after a change of work
pays for memory that the next finds ready. Rows of one round saw the same drift, so differences are
taken within rounds (surcharges.py); the order turns round every time, so that nobody is always
first. A pass of every row before the first round shows its peak memory and is not timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from benchmarks import gpu
from benchmarks.memory import peak_mb

Key = TypeVar("Key")


@dataclass(frozen=True)
class Run:
    """Timed is call(*arguments(seed)); the arguments are made outside the time.

    All rows of a round get the same seed, and every round another one.
    """

    call: Callable[..., Any]
    arguments: Callable[[int], tuple[Any, ...]]


@dataclass
class Timed:
    """Seconds of each round, or why there are none, and the peak memory of a run."""

    durations: list[float] = field(default_factory=list)
    peak_mb: float | None = None
    failure: Exception | None = None


def seconds(call: Callable[[], object], device: str) -> float:
    """Of one call, by events where the device has them."""
    if device == "cuda":
        return gpu.seconds(call)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(
    runs: dict[Key, Run], device: str, budget: float, least: int, most: int
) -> dict[Key, Timed]:
    """Between `least` and `most` rounds, as many as fit `budget` seconds, inputs included."""
    table = {key: _warm(run, device) for key, run in runs.items()}
    order = [key for key, timed in table.items() if timed.failure is None]
    count, spent = 0, 0.0
    while count < least or (count < most and spent + spent / count <= budget):
        started = time.perf_counter()
        for key in order if count % 2 == 0 else reversed(order):
            call = partial(runs[key].call, *runs[key].arguments(count + 1))
            table[key].durations.append(seconds(call, device))
        spent += time.perf_counter() - started
        count += 1
    return table


def _warm(run: Run, device: str) -> Timed:
    """A row that fails, for want of memory say, fails alone."""
    try:
        peak = peak_mb(partial(run.call, *run.arguments(0)), device)
    except Exception as failure:
        return Timed(failure=failure)
    return Timed(peak_mb=None if peak is None else round(peak, 2))
