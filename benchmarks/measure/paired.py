"""Runs that are compared, timed in turn: a machine drifts by more than they differ.

The first run after a change of work pays for memory that the next finds ready, so the order turns
round every time. A pass of every run before the first round shows its peak memory and is not timed.

`measure` is for the rows of a table: every row runs once in each round, and differences are taken
within rounds (surcharges.py). `interleave` is for the forms of an op, of which one may be a
thousand times faster than another: each has its own number of rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from benchmarks.measure import gpu
from benchmarks.measure.memory import peak_mb

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


def interleave(
    runs: dict[Key, Run],
    device: str,
    rounds: Callable[[float, float], int],
    compiled: Container[Key] = (),
) -> dict[Key, Timed]:
    """Every run its own number of rounds, spread over the time that all of them take.

    rounds(seconds of a call, seconds to make its arguments): how many are wanted. compiled: keys of
    runs whose first call compiles.
    """
    table: dict[Key, Timed] = {}
    wanted: dict[Key, int] = {}
    for key, run in runs.items():
        try:
            making, once, peak = warm_up(run, device, key in compiled)
        except Exception as failure:  # fails alone
            table[key] = Timed(failure=failure)
        else:
            table[key], wanted[key] = Timed(peak_mb=peak), rounds(once, making)
    most = max(wanted.values(), default=0)
    for turn in range(1, most + 1):
        due = [key for key in wanted if wanted[key] * turn // most > len(table[key].durations)]
        for key in due if turn % 2 else reversed(due):
            call = partial(runs[key].call, *runs[key].arguments(turn))
            try:
                table[key].durations.append(seconds(call, device))
            except Exception as failure:  # on this round's inputs
                table[key].failure = failure
                del wanted[key]
    return table


def _warm(run: Run, device: str) -> Timed:
    """A row that fails, for want of memory say, fails alone."""
    try:
        return Timed(peak_mb=_peak(partial(run.call, *run.arguments(0)), device))
    except Exception as failure:
        return Timed(failure=failure)


def _peak(call: Callable[[], object], device: str) -> float | None:
    """As the record holds it."""
    peak = peak_mb(call, device)
    return None if peak is None else round(peak, 2)


def warm_up(run: Run, device: str, compiles: bool = False) -> tuple[float, float, float | None]:
    """(seconds to make the arguments, seconds of a call, its peak MB).

    The call that shows the peak is a slow one, so that a second gives the time unless it is long.
    """
    if compiles:
        run.call(*run.arguments(0))
    peak = None
    for measuring_peak in (True, False):
        start = time.perf_counter()
        call = partial(run.call, *run.arguments(0))
        ready = time.perf_counter()
        if measuring_peak:
            peak = _peak(call, device)
        else:
            call()
        making, once = ready - start, time.perf_counter() - ready
        if once > 1.5:
            break
    return making, once, peak
