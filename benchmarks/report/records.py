"""The record of a run: read from pytest-benchmark's JSON or from a committed, compact one.

A committed record (`write`) holds what the reports and the guard read and nothing else: four digits
of each time, what a case's providers have in common once, a list per column, a case a line.
Used by tables.py, surcharges.py, readme.py, plots.py and ../guard.py.
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
TIMES = ("median", "iqr", "least")


@dataclass(frozen=True)
class Record:
    """One run. machine: cpu, vendor, family, model, isa, threads, torch, kdops, python, gpu, ..."""

    date: str
    commit: str
    machine: dict[str, Any]
    groups: Groups


def load(path: Path) -> Record:
    """Rows by group in the order of the run."""
    text = json.loads(path.read_text())
    return _of_compact(text) if "cases" in text else _of_run(text)


def write(record: Record, path: Path) -> None:
    """The compact form."""
    head = {"date": record.date, "commit": record.commit, "machine": record.machine}
    usual = _usual(record.machine)
    lines = [
        json.dumps(_case(group, rows, usual), separators=(",", ":"))
        for group, rows in record.groups.items()
    ]
    cases = ",\n".join(lines)
    path.write_text(f'{json.dumps(head)[:-1]},\n"cases": [\n{cases}\n]}}\n')


def _of_run(text: dict[str, Any]) -> Record:
    """pytest-benchmark's own form; times of a round of many calls become those of a call."""
    groups: Groups = {}
    for bench in text["benchmarks"]:
        info = dict(bench.get("extra_info", {}))
        if "provider" not in info:
            continue
        calls = info.pop("calls", 1)
        times = [bench["stats"][name] / calls for name in ("median", "iqr", "min")]
        row = Row(bench["group"], info.pop("provider"), *times, info)
        groups.setdefault(bench["group"], []).append(row)
    commit = text.get("commit_info", {})
    named = (commit.get("id") or "")[:12] + (" with changes" if commit.get("dirty") else "")
    return Record(text.get("datetime", "")[:10], named, _machine(text), groups)


def _machine(text: dict[str, Any]) -> dict[str, Any]:
    """What a time depends on."""
    full = text.get("machine_info", {})
    cpu = full.get("cpu", {})
    found = {
        "cpu": cpu.get("brand_raw") or full.get("processor"),
        "vendor": cpu.get("vendor_id_raw"),
        "family": cpu.get("family"),
        "model": cpu.get("model"),
        # records from before kdops' own instruction set was noted have torch's
        "isa": full.get("isa") or full.get("capability", "").lower(),
        "python": full.get("python_version"),
        **{name: full.get(name) for name in ("threads", "torch", "kdops", "gpu", "cuda")},
        "ceilings": full.get("ceilings"),
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


def _digits(name: str, value: Any) -> Any:
    """Four digits of a time, two or three of what is only shown."""
    digits = {"error": 2, "iqr": 3, "peak_mb": 3}.get(name, 4)
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def _usual(machine: dict[str, Any]) -> dict[str, Any]:
    """What a case is unless it says otherwise."""
    return {
        "device": "cpu",
        "dtype": "float32",
        "threads": machine.get("threads"),
        "slow": True,
    }


def _usual_group(info: dict[str, Any]) -> str:
    """The group of a case that is a problem in one mode (measure/problem.py)."""
    place = "" if info["device"] == "cpu" else f" {info['device']}"
    return f"{info.get('op')} {info.get('label')} {info['dtype']}{place} {info.get('mode')}"


def _implied(op: str, first: str) -> dict[str, str]:
    """What need not be written: the first provider is the baseline, a sweep's op has its name."""
    kind, _, sweep = op.partition(": ")
    return {"baseline": first} | ({"sweep": sweep} if kind == "scaling" else {})


def _case(group: str, rows: list[Row], usual: dict[str, Any]) -> dict[str, Any]:
    """A case of the compact form: what its rows have in common, then a list per column."""
    first = rows[0].info
    common = {k: v for k, v in first.items() if all(r.info.get(k) == v for r in rows)}
    told = {k: _digits(k, v) for k, v in common.items() if k not in usual or usual[k] != v}
    if common.get("device", "cpu") == "cpu":  # floors are those of a GPU
        told = {k: v for k, v in told.items() if k not in ("bytes", "flop")}
    if group != _usual_group(usual | common):
        told = {"group": group, **told}
    implied = _implied(common["op"], rows[0].provider).items()
    told = {k: v for k, v in told.items() if (k, v) not in implied}
    own = [
        {"provider": row.provider}
        | {name: getattr(row, name) for name in TIMES}
        | {k: v for k, v in row.info.items() if k not in common}
        for row in rows
    ]
    names = dict.fromkeys(name for row in own for name in row)
    return told | {"rows": {name: [_digits(name, r.get(name)) for r in own] for name in names}}


def _of_compact(text: dict[str, Any]) -> Record:
    groups: Groups = {}
    usual = _usual(text["machine"])
    for case in text["cases"]:
        common = usual | _implied(case["op"], case["rows"]["provider"][0])
        common |= {k: v for k, v in case.items() if k not in ("group", "rows")}
        group = case.get("group") or _usual_group(common)
        rows = groups.setdefault(group, [])
        for values in zip(*case["rows"].values(), strict=True):
            own = {k: v for k, v in zip(case["rows"], values, strict=True) if v is not None}
            provider, *times = (own.pop(name) for name in ("provider", *TIMES))
            rows.append(Row(group, provider, *times, common | own))
    return Record(text["date"], text["commit"], text["machine"], groups)


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


def facts(record: Record) -> dict[str, str]:
    """Where the numbers come from."""
    machine = record.machine
    known = {
        "date": record.date,
        "commit": f"commit {record.commit}" if record.commit else None,
        "machine": machine.get("cpu"),
        "threads": f"{machine['threads']} threads" if "threads" in machine else None,
        "torch": f"torch {machine['torch']}" if "torch" in machine else None,
        "kdops": f"kdops {machine['kdops']}" if "kdops" in machine else None,
        "GPU": machine.get("gpu"),
        "CUDA": machine.get("cuda"),
        "python": f"Python {machine['python']}" if "python" in machine else None,
    }
    return {name: str(value) for name, value in known.items() if value}
