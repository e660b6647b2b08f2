"""How far a long phase has come: tqdm's bar, or without tqdm a line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

try:
    from tqdm.auto import tqdm
except ImportError:  # the extra [demo] brings it
    tqdm = None

__all__ = ["Progress", "planned", "say", "tqdm"]

EVERY = 10.0  # seconds between two lines


def say(text: str) -> None:
    """A line on the error output, above an open bar."""
    if tqdm is None:
        print(text, file=sys.stderr)
    else:
        tqdm.write(text, file=sys.stderr)


class Progress:
    """Counts the steps of `epochs` walks of `batches`, at most `most`; silent unless shown."""

    def __init__(
        self, label: str, batches: Iterable[Any], epochs: int, most: int | None, shown: bool
    ) -> None:
        self.label, self.done, self.total = label, 0, planned(batches, epochs, most)
        self.start = self.said = time.monotonic()
        self.plain = shown and tqdm is None
        self.bar = tqdm(total=self.total, desc=label, leave=False) if tqdm and shown else None

    def step(self) -> None:
        self.done += 1
        if self.bar is not None:
            self.bar.update()
        elif self.plain and time.monotonic() >= self.said + EVERY:
            self.said = time.monotonic()
            say(f"{self.label}: {self.done} {self._rest(self.said - self.start)}")

    def _rest(self, seconds: float) -> str:
        if self.total is None:
            return f"steps in {seconds:.0f} s"
        left = seconds / self.done * (self.total - self.done)
        return f"of {self.total} steps in {seconds:.0f} s, about {left:.0f} s left"

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()


def planned(batches: Iterable[Any], epochs: int, most: int | None) -> int | None:
    """How many there will be; None where the number of batches is not known beforehand."""
    try:
        count = epochs * len(batches)  # type: ignore[arg-type]
    except TypeError:  # no length, or a loader of a stream
        return most
    return count if most is None else min(count, most)
