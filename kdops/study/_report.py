"""A study's table in the terminal and its plot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdops.study._study import Published, Study

Results = Mapping[str, Any]  # what the runner writes: settings and cells
NONE = "-"


def key(row: str, column: str) -> str:
    return f"{row} | {column}"


def of_seeds(record: Results, count: int) -> dict[str, Any]:
    """The record with the first seeds only: an earlier run may have trained more."""
    first = {str(seed) for seed in range(count)}
    cells = {place: {s: x for s, x in found.items() if s in first}
             for place, found in record["cells"].items()}  # fmt: skip
    return {"settings": {**record["settings"], "seeds": count}, "cells": cells}


def values(record: Results, row: str, column: str) -> list[float]:
    """Of all seeds; none where the cell does not exist or was not run."""
    found = record["cells"].get(key(row, column), {})
    return [x for x in found.values() if x is not None]


def means(record: Results, rows: Sequence[str], columns: Sequence[str]) -> dict[Any, Any]:
    cells = {(r, c): values(record, r, c) for r in rows for c in columns}
    return {place: statistics.mean(x) if x else None for place, x in cells.items()}


def table(study: Study, record: Results, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Means and deviations, remarks, and the published table."""
    settings = record["settings"]
    lines = [[study.axis, *columns]]
    for row in rows:
        lines.append([row, *(_cell(values(record, row, column)) for column in columns)])
    head = (
        f"{study.question}\n{settings['data']}: {settings['train']} training images of the "
        f"students, {settings['epochs']} epochs, batch {settings['batch']}; test accuracy in per "
        f"cent, mean ± deviation over {settings['seeds']} seeds"
    )
    text = [head, "", _aligned(lines)]
    if study.remark is not None:
        text += ["", study.remark(means(record, rows, columns), rows, columns)]
    text += ["", published(study.published)]
    return "\n".join(text)


def published(found: Published | None) -> str:
    if found is None:
        return "published: no table at hand"
    lines = [["", *found.columns]]
    lines += [[row, *(f"{x:.2f}" for x in numbers)] for row, numbers in found.rows.items()]
    return f"published ({found.source}; {found.note}):\n{_aligned(lines)}"


def _cell(found: Sequence[float]) -> str:
    if not found:
        return NONE
    spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.2f}{spread}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
            for line in lines]  # fmt: skip
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def plot(
    study: Study, record: Results, path: Path, rows: Sequence[str], columns: Sequence[str]
) -> bool:
    """Lines or groups of bars with error bars; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(max(7.0, 3.0 + 0.35 * len(columns) * len(rows)), 4.2),
                    layout="constrained", dpi=110)  # fmt: skip
    ax = figure.subplots()
    found = means(record, rows, columns)
    for i, row in enumerate(rows):
        there = [j for j, c in enumerate(columns) if found[row, c] is not None]
        heights = [found[row, columns[j]] for j in there]
        spreads = [_spread(values(record, row, columns[j])) for j in there]
        if study.lines and len(columns) > 1:
            shifted = [j + 0.04 * (i - (len(rows) - 1) / 2) for j in there]  # not upon each other
            ax.errorbar(shifted, heights, spreads, marker="o", capsize=3, label=row)
        else:
            width = 0.8 / len(rows)
            places = [j + (i - (len(rows) - 1) / 2) * width for j in there]
            ax.bar(places, heights, width, yerr=spreads, capsize=2, label=row)
    drawn = [x for x in found.values() if x is not None]
    if drawn:
        margin = 0.25 * (max(drawn) - min(drawn)) + 1
        ax.set_ylim(max(min(drawn) - margin, 0), min(max(drawn) + margin, 101))
    ax.set_xticks(range(len(columns)), columns)
    ax.set(xlabel=study.axis, ylabel="test accuracy, %", title=study.question)
    ax.title.set(fontsize=9, wrap=True)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path)
    return True


def _spread(found: Sequence[float]) -> float:
    return statistics.stdev(found) if len(found) > 1 else 0.0
