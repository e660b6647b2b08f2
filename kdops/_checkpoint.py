"""The file from which fit goes on after an interruption: written whole, read with care."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Rows = list[dict[str, float]]


@dataclass
class Checkpoint:
    """All that a run needs to go on: weights, optimizer, random states, history."""

    path: str | Path | None
    parts: dict[str, Any]
    generator: torch.Generator  # of the loader's shuffling

    def save(self, history: Rows) -> None:
        """Write aside, then rename: an interruption leaves the old file or the new one."""
        if self.path is None:
            return
        state: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"history": history, "rng": torch.get_rng_state()}
        state["loader"] = self.generator.get_state()
        state["cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        aside = f"{self.path}.{os.getpid()}.tmp"
        try:
            torch.save(state, aside)
            with open(aside, "rb+") as file:
                os.fsync(file.fileno())  # a power cut after the rename must not leave it empty
            os.replace(aside, self.path)
        finally:
            Path(aside).unlink(missing_ok=True)

    def check(self, epoch: int) -> None:
        """Weights that are not finite are not saved over those of the epoch before."""
        for part in ("student", "method"):
            state = self.parts[part].state_dict() if part in self.parts else {}
            for name, x in state.items():
                if isinstance(x, Tensor) and x.is_floating_point() and not x.isfinite().all():
                    raise FloatingPointError(
                        f"fit: the {part}'s {name} is not finite after epoch {epoch}{self.kept()}"
                    )

    def kept(self) -> str:
        """For messages: what is left of the run."""
        known = self.path is not None and Path(self.path).exists()
        return f"; {self.path} keeps the last good epoch" if known else ""

    def restore(self) -> Rows:
        if self.path is None or not Path(self.path).exists():
            return []
        state = self._load()
        for name, part in self.parts.items():
            try:
                part.load_state_dict(state[name])
            except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"fit: {self.path} belongs to another run, its {name} does not fit: {error}"
                ) from error
        torch.set_rng_state(state["rng"])
        for device, kept in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(kept, device)
        self.generator.set_state(state["loader"])
        return list(state["history"])

    def _load(self) -> dict[str, Any]:
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)  # type: ignore[arg-type]
        except Exception as error:  # torch has an exception of its own for every kind of damage
            if isinstance(error, OSError) and error.filename:  # no permission, a directory
                raise
            raise ValueError(
                f"fit: {self.path} is no checkpoint, or is cut short "
                f"({type(error).__name__}); move it away to start anew"
            ) from error
        expected = [*self.parts, "history", "rng", "loader", "cuda"]
        found = list(state) if isinstance(state, dict) else type(state).__name__
        if not isinstance(state, dict) or not set(expected) <= set(state):
            raise ValueError(f"fit: {self.path} holds {found}, not {expected}")
        return state
