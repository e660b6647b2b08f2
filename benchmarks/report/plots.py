"""The PNG plots of the report and of the README: speed-ups, growth with size, iterations."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from PIL import Image

from benchmarks.report.records import Groups, memory_points, ours, sweeps
from benchmarks.report.selection import CASES, baseline, best_plain
from benchmarks.report.surcharges import Table, iterations

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PLAIN, MINE = "#9aa0a6", "#1a73e8"


# sweeps of the README, one per kind of op
SHOWN = ("svd n x n, batch 32", "nst_loss (16; n, 8x8)", "rkd_angle_loss over N",
         "rbf_affinity_loss over N")  # fmt: skip


def draw(groups: Groups, folder: Path) -> list[Path]:
    """All plots for which there are results; their paths."""
    made = headlines(groups, folder)
    for i, (name, providers) in enumerate(sweeps(groups).items()):
        made.append(_sweep(name, providers, folder / f"scaling-{i + 1}.png"))
    return made


def headlines(groups: Groups, folder: Path) -> list[Path]:
    """The README's plots: at most three."""
    made = [_speedups(groups, folder / "speedup.png")]
    found = sweeps(groups)
    if any(name in found for name in SHOWN):
        made.append(_overview(found, folder / "scaling.png"))
    tables = iterations(groups)
    if tables:
        made.append(_iterations(tables, folder / "iteration.png"))
    return [path for path in made if path is not None]


def _speedups(groups: Groups, path: Path) -> Path | None:
    """Bars per case of the README over what users run today, points over the best plain form."""
    bars = []
    for group, name in CASES.items():
        rows = groups.get(group, [])
        mine, today, plain = ours(rows), baseline(rows), best_plain(rows)
        if mine is not None and today is not None and mine.green:
            best = plain.median / mine.median if plain else None
            bars.append((name, today.median / mine.median, best))
    if not bars:
        return None
    figure, axes = plt.subplots(figsize=(7, 1 + 0.2 * len(bars)))
    axes.barh(range(len(bars)), [b[1] for b in bars], color=MINE, label="over what runs today")
    points = [(i, b[2]) for i, b in enumerate(bars) if b[2]]
    if points:
        axes.plot([x for _, x in points], [i for i, _ in points], "o", color="black", markersize=4,
                  linestyle="", label="over the best plain PyTorch form")  # fmt: skip
    axes.set_yticks(range(len(bars)), [b[0] for b in bars], fontsize=7)
    axes.set_xscale("log")
    axes.axvline(1, color="#d93025", linewidth=1)
    axes.set_xlim(left=0.7 * min(1, *(b[1] for b in bars), *(x for _, x in points)))
    axes.invert_yaxis()
    axes.set_xlabel("speed-up of kdops (right of the red line: faster)")
    axes.legend(fontsize=7, loc="lower right")
    return _save(figure, path)


def _overview(found, path: Path) -> Path:
    """Time above, peak memory below, against size."""
    names = [name for name in SHOWN if name in found]
    figure, panels = plt.subplots(2, len(names), figsize=(3 * len(names), 5), squeeze=False)
    for (top, bottom), name in zip(panels.T, names, strict=True):
        for provider, rows in found[name].items():
            colour = MINE if provider == "kdops" else "black" if provider[0] == "t" else PLAIN
            rows = sorted(rows, key=lambda row: row.info["size"])
            style = {"marker": "o", "markersize": 3, "color": colour, "label": provider}
            top.plot([r.info["size"] for r in rows], [1e3 * r.median for r in rows], **style)
            shown = [r for r in rows if (r.info.get("peak_mb") or 0) > 0.01]
            bottom.plot(
                [r.info["size"] for r in shown], [r.info["peak_mb"] for r in shown], **style
            )
        top.set_title(name, fontsize=8)
        for axes, label in ((top, "ms"), (bottom, "peak MB")):
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_ylabel(label, fontsize=7)
            axes.tick_params(labelsize=7)
        top.legend(fontsize=6)
    return _save(figure, path)


def _sweep(name: str, providers, path: Path) -> Path:
    """Time and peak memory against size, and the speed-up where both were measured."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.5))
    medians = {}
    for provider, rows in providers.items():
        rows = sorted(rows, key=lambda row: row.info["size"])
        sizes = [row.info["size"] for row in rows]
        medians[provider] = dict(zip(sizes, [row.median for row in rows], strict=True))
        colour = MINE if provider.startswith("kdops") else PLAIN
        spread = [row.iqr * 5e2 for row in rows]
        values = [1e3 * m for m in medians[provider].values()]
        style = {"marker": "o", "color": colour, "label": provider}
        style["linestyle"] = "-" if provider in ("kdops", "published") else ":"
        left.errorbar(sizes, values, yerr=spread, **style)
        peaks = sorted(memory_points(rows))
        middle.plot([size for size, _ in peaks], [peak for _, peak in peaks], **style)
    mine = {row.info["size"]: row for row in providers.get("kdops", []) if row.green}
    for provider, values in medians.items():
        if provider != "kdops":
            sizes = [size for size in values if size in mine]
            ratios = [values[size] / mine[size].median for size in sizes]
            right.plot(sizes, ratios, marker="o", color=MINE, label=f"over {provider}")
    for axes, label in ((left, "ms"), (middle, "peak MB"), (right, "speed-up")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("size")
        axes.set_ylabel(label)
        if axes.lines:
            axes.legend(fontsize=7)
    figure.suptitle(name)
    return _save(figure, path)


def _iterations(tables: list[Table], path: Path) -> Path:
    """Bars per method, plain PyTorch beside kdops, a panel per pair of networks."""
    figure, panels = plt.subplots(1, len(tables), figsize=(6 * len(tables), 3.8), squeeze=False)
    for axes, table in zip(panels[0], tables, strict=True):
        names = [name for name in table.methods if not name.startswith("part: ")]
        for shift, side, colour in ((-0.2, "published", PLAIN), (0.2, "kdops", MINE)):
            rows = [table.methods[name].get(side) for name in names]
            heights = [row.median if row else 0.0 for row in rows]
            places = [i + shift for i in range(len(names))]
            axes.bar(places, heights, 0.4, color=colour, label=side)
        axes.set_xticks(range(len(names)), names, rotation=60, fontsize=7)
        axes.set_ylabel("seconds per iteration")
        axes.set_title(table.label, fontsize=9)
        axes.legend(fontsize=7)
    return _save(figure, path)


def _save(figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
    with Image.open(path) as image:  # few colours: a third of the size
        small = image.convert("RGB").quantize(64)
    small.save(path, optimize=True)
    return path
