"""What is committed of every case, and how far it may grow.

5 % is for another version of the compiler, and for inputs that another host rounds otherwise, where
an iteration may take a step more.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.predict.model import Prediction

FILE = Path(__file__).with_name("budgets.json")
MARGINS = {"instructions": 1.05, "predicted": 1.05}


def figures(prediction: Prediction) -> dict[str, float]:
    """Thousands of issued warp instructions, predicted microseconds, and what may only fall."""
    kernels = prediction.kernels
    return {
        "instructions": round(prediction.instructions / 1e3, 1),
        "predicted": round(prediction.predicted, 2),
        "launches": len(kernels),
        "spilled": max(kernel["spilled"] for kernel in kernels),
    }
