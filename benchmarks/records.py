"""The record of a run (pytest-benchmark JSON), and what is read off it.

Used by report.py, readme.py, plots.py and guard.py.
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


def iterations(groups: Groups) -> dict[str, dict[str, dict[str, float]]]:
    """label -> method -> side -> median seconds."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for rows in groups.values():
        for row in rows:
            if row.info.get("op") == "iteration":
                methods = found.setdefault(row.info["label"], {})
                methods.setdefault(row.info["method"], {})[row.provider] = row.median
    return found


Methods = dict[str, dict[str, float]]


def surcharges(methods: Methods, method: str, over: str = "SoftTarget") -> list[float] | None:
    """Seconds over another row, in PyTorch and with kdops; None for a part or where a side lacks.

    The other row touches no operator of kdops, so both sides' runs of it are one figure.
    """
    sides, base = methods[method], methods.get(over, {})
    if method.startswith("part: ") or len(base) < 2 or len(sides) < 2:
        return None
    common = sum(base.values()) / len(base)
    return [sides["published"] - common, sides["kdops"] - common]


def noise(methods: Methods, over: str) -> float:
    """Seconds that mean nothing: 5 % of an iteration, twice what two runs of one row differ by, and
    what some method, which does all that SoftTarget does, seems to take less than SoftTarget.
    """
    base = methods[over]
    cheaper = [
        -seconds
        for method in methods
        if method not in ("Student", "DML")
        for seconds in surcharges(methods, method) or []
    ]
    return max(0.05 * base["published"], 2 * abs(base["published"] - base["kdops"]), *cheaper)


def removed(methods: Methods, method: str, over: str = "SoftTarget") -> str:
    """The share of the surcharge that kdops removes; "noise" where there is no clear surcharge."""
    extra = surcharges(methods, method, over)
    if extra is None or method in ("Student", "SoftTarget", "DML", "two passes"):
        return ""
    if over == "two passes" and method not in ("MHGD", "KD-SVD", "IEP"):
        return ""
    clear = extra[0] > noise(methods, over)
    return f"{100 * (1 - extra[1] / extra[0]):.0f} %" if clear else "noise"


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
