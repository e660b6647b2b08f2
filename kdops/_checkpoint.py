"""What kdops.training.fit writes beside its networks: a checkpoint to go on from, and a log."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
        torch.save(state, aside := f"{self.path}.tmp")
        os.replace(aside, self.path)

    def restore(self) -> Rows:
        if self.path is None or not Path(self.path).exists():
            return []
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if not self.parts.keys() <= state.keys():
            raise ValueError(f"fit: {self.path} holds {list(state)}, not {list(self.parts)}")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
        torch.cuda.set_rng_state_all(state["cuda"])
        self.generator.set_state(state["loader"])
        return list(state["history"])


def write_log(log: Any, history: Rows) -> None:
    """The last row to an object with add_scalar, or all of them to a .csv file."""
    if hasattr(log, "add_scalar"):
        for name, value in history[-1].items():
            log.add_scalar(name, value, len(history) - 1)
    elif log is not None:
        rows: list[Any] = [list(history[0]), *(list(row.values()) for row in history)]
        with open(log, "w", newline="") as file:
            csv.writer(file).writerows(rows)
