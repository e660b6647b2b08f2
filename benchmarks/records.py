"""The record of a run (pytest-benchmark JSON), and what is read off it.

Used by report.py, surcharges.py, readme.py, plots.py and guard.py.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One provider of one case; seconds per call. least: the fastest round."""

    group: str
    provider: str
    median: float
    iqr: float
    least: float
    info: dict[str, Any]

    @property
    def green(self) -> bool:
        """Accuracy was checked and is within the tolerance."""
        error = self.info.get("error")
        if error is None or not math.isfinite(error):
            return False
        return error <= self.info.get("tolerance", math.inf)


Groups = dict[str, list[Row]]


def load(path: Path) -> tuple[dict[str, Any], Groups]:
    """(the whole record, rows by group in the order of the run)."""
    record = json.loads(path.read_text())
    groups: Groups = {}
    for bench in record["benchmarks"]:
        info = bench.get("extra_info", {})
        if "provider" not in info:
            continue
        calls = info.get("calls", 1)
        stats = bench["stats"]
        times = [stats[name] / calls for name in ("median", "iqr", "min")]
        row = Row(bench["group"], info["provider"], *times, info)
        groups.setdefault(bench["group"], []).append(row)
    return record, groups


def ours(rows: list[Row]) -> Row | None:
    """The kdops row of a case, by the backend that kdops chooses."""
    return next((r for r in rows if r.provider == "kdops"), None)


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def exponent(points: list[tuple[float, float]]) -> float:
    """Slope of log(value) against log(size) over the upper half of the sizes (at least three)."""
    points = sorted(points)
    points = points[-max(3, len(points) // 2) :]
    x = [math.log(size) for size, _ in points]
    y = [math.log(value) for _, value in points]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    square = sum((a - mean_x) ** 2 for a in x)
    if square == 0:
        return math.nan
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / square


def sweeps(groups: Groups) -> dict[str, dict[str, list[Row]]]:
    """sweep -> provider -> rows by size."""
    found: dict[str, dict[str, list[Row]]] = {}
    for rows in groups.values():
        for row in rows:
            if "sweep" in row.info:
                found.setdefault(row.info["sweep"], {}).setdefault(row.provider, []).append(row)
    return found


def memory_points(rows: list[Row]) -> list[tuple[float, float]]:
    """(size, peak MB) where the peak is large enough to be the op's and not the allocator's."""
    known = [(row.info["size"], row.info.get("peak_mb") or 0.0) for row in rows]
    return [(size, peak) for size, peak in known if peak >= 4]


def _commit(info: dict[str, Any]) -> str | None:
    if not info.get("id"):
        return None
    return f"commit {info['id'][:12]}" + (" with changes" if info.get("dirty") else "")


def facts(record: dict[str, Any]) -> dict[str, str]:
    """Where the numbers come from."""
    machine = record.get("machine_info", {})
    cpu = machine.get("cpu", {})
    known = {
        "date": record.get("datetime", "")[:10],
        "commit": _commit(record.get("commit_info", {})),
        "machine": cpu.get("brand_raw") or machine.get("processor"),
        "threads": f"{machine['threads']} threads" if "threads" in machine else None,
        "torch": f"torch {machine['torch']}" if "torch" in machine else None,
        "kdops": f"kdops {machine['kdops']}" if "kdops" in machine else None,
        "GPU": machine.get("gpu"),
        "CUDA": machine.get("cuda"),
        "python": f"Python {machine['python_version']}" if "python_version" in machine else None,
    }
    return {name: str(value) for name, value in known.items() if value}
