"""A clock for pytest-benchmark that moves only by what was measured otherwise.

By CUDA events while a case runs (gpu.py), or before it, in rounds that it shared with other cases
(paired.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Clock:
    """A timer that stands still but for `now += seconds`."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def attach(benchmark: Any) -> Clock:
    """The clock that this benchmark reads from here on."""
    clock = Clock()
    benchmark._timer = clock  # the fixture's timer; there is no public way to set it per test
    return clock


def replay(benchmark: Any, durations: Sequence[float]) -> None:
    """Reports these seconds as the benchmark's rounds."""
    clock, left = attach(benchmark), iter(durations)

    def one_round() -> None:
        clock.now += next(left)

    benchmark.pedantic(one_round, rounds=len(durations))
