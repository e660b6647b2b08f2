"""Committed figures that are counted, not measured: the same code gives the same, so that a test
without noise can hold code to them (predict, instructions)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

Figures = dict[str, dict[str, float]]


def load(path: Path) -> Figures:
    found: Figures = json.loads(path.read_text())
    return found


def save(found: Figures, path: Path) -> None:
    """A case a line, so that a difference shows which."""
    known = {**(load(path) if path.is_file() else {}), **found}
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in known.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def excesses(found: Figures, committed: Figures, margins: Mapping[str, float]) -> list[str]:
    """A sentence for each figure above its budget times its margin, and for each case without."""
    complaints = []
    for case, row in found.items():
        if case not in committed:
            complaints.append(f"{case}: no budget: run it with --update")
            continue
        for name, value in row.items():
            budget = committed[case][name]
            if value > budget * margins.get(name, 1.0):
                complaints.append(f"{case}: {name} {value:g}, budget {budget:g}")
    return complaints
