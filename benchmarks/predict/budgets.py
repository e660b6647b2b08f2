"""Committed figures of every case, and what may not grow past them.

Nothing here is measured, so nothing here is noisy: the same code and the same compiler give the
same figures. 5 % is for another version of the compiler, and for inputs that another host rounds
otherwise, where an iteration may take a step more.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.predict.model import Prediction

FILE = Path(__file__).with_name("budgets.json")
MARGIN = 1.05

Figures = dict[str, dict[str, float]]


def figures(prediction: Prediction) -> dict[str, float]:
    """Thousands of issued warp instructions, predicted microseconds, and what may only fall."""
    kernels = prediction.kernels
    return {
        "instructions": round(prediction.instructions / 1e3, 1),
        "predicted": round(prediction.predicted, 2),
        "launches": len(kernels),
        "spilled": max(kernel["spilled"] for kernel in kernels),
    }


def load(path: Path = FILE) -> Figures:
    found: Figures = json.loads(path.read_text())
    return found


def save(found: Figures, path: Path = FILE) -> None:
    """A case a line, so that a difference shows which."""
    known = {**(load(path) if path.is_file() else {}), **found}
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in known.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def excesses(found: Figures, committed: Figures) -> list[str]:
    """A sentence for each figure that has grown past its budget, and for each case without one."""
    complaints = []
    for case, row in found.items():
        if case not in committed:
            complaints.append(f"{case}: no budget: python -m benchmarks.predict --update")
            continue
        for name, value in row.items():
            budget = committed[case][name]
            margin = MARGIN if name in ("instructions", "predicted") else 1.0
            if value > budget * margin:
                complaints.append(f"{case}: {name} {value:g}, budget {budget:g}")
    return complaints
