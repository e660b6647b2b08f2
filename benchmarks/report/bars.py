"""The bars of decompositions beyond min(m, n) = 128, each against what the record says.

Ratios of medians for the ops; for a training iteration at 224 pixels the differences within rounds.
A case that is red or not in the record is left out.
"""

from __future__ import annotations

from statistics import median

from benchmarks.cases.shapes import BARS
from benchmarks.report.records import Groups, Row, ours
from benchmarks.report.surcharges import ratio, with_spread

OVER = {"torch Gram + eigh": 4.0, "torch.linalg.svd": 8.0}
STEP = 2.0  # of 129x129 over 128x128
# of the student's own step; a method with clip_to_main costs another backward pass whatever it is
SURCHARGE = {"KD-SVD": 0.4, "MHGD": 0.35}
MEMORY = 3.0  # times the maps


def markdown(groups: Groups) -> list[str]:
    """A table of what is measured, nothing without such cases."""
    found = [*_speed(groups), *_across(groups), *_iterations(groups)]
    if not found:
        return []
    lines = [
        "",
        "### Bars of sizes beyond 128",
        "",
        "| what | bar | measured | |",
        "|---|---|---|---|",
    ]
    return lines + [f"| {' | '.join(cells)} |" for cells in found]


def _line(what: str, value: float, bar: float, shown: str, least: bool) -> list[str]:
    met = value >= bar if least else value <= bar
    return [
        what,
        f"{'at least' if least else 'at most'} {bar:g}",
        shown,
        "" if met else "**missed**",
    ]


def _top(size: str, batch: int) -> str:
    return f"svd top 4 beyond 128, network {batch} of {size} float32 both"


def _speed(groups: Groups) -> list[list[str]]:
    """Forward and backward of k = 4 against both plain forms."""
    lines = []
    for m, n in BARS:
        for batch in (8, 32):
            rows = groups.get(_top(f"{m}x{n}", batch), [])
            mine = ours(rows)
            for other in rows:
                if mine is not None and mine.green and other.provider in OVER:
                    times = other.median / mine.median
                    what = f"top 4 of {batch} {m}x{n}: faster than {other.provider}"
                    bar = OVER[other.provider]
                    lines.append(_line(what, times, bar, f"{times:.1f}x", least=True))
    return lines


def _across(groups: Groups) -> list[list[str]]:
    before, after = (ours(groups.get(_top(size, 8), [])) for size in ("128x128", "129x129"))
    if before is None or after is None or not after.green:
        return []
    times = after.median / before.median
    return [_line("top 4 of 8 129x129 over 128x128", times, STEP, f"{times:.2f}x", least=False)]


def _iterations(groups: Groups) -> list[list[str]]:
    pairs: dict[str, dict[str, Row]] = {}
    for rows in groups.values():
        for row in rows:
            if row.info.get("op") == "large iteration":
                pairs.setdefault(row.info["label"], {})[row.info["row"]] = row
    lines = []
    for label, rows in pairs.items():
        for method, bar in SURCHARGE.items():
            share = _surcharge(rows, method)
            if share:
                shown = with_spread(share, digits=2)
                what = f"{label}: {method}, of the student's step"
                lines.append(_line(what, median(share), bar, shown, least=False))
            lines += _memory(label, method, rows.get(f"maps: {method}"))
    return lines


def _surcharge(rows: dict[str, Row], name: str) -> list[float]:
    """What a method adds to the step with the teacher's forward, over the student's own step."""
    if not {name, "teacher", "student"} <= rows.keys():
        return []
    mine, teacher, student = (
        rows[key].info.get("durations", []) for key in (name, "teacher", "student")
    )
    if not len(mine) == len(teacher) == len(student) > 0:
        return []
    return ratio([a - b for a, b in zip(mine, teacher, strict=True)], student)


def _memory(label: str, method: str, row: Row | None) -> list[list[str]]:
    if row is None or row.info.get("peak_mb") is None:
        return []
    times = row.info["peak_mb"] / row.info["maps_mb"]
    what = f"{label}: {method}, peak memory over the maps'"
    return [_line(what, times, MEMORY, f"{times:.2f}x", least=False)]
