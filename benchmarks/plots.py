"""The PNG plots of report.py: speed-ups per case, time against size, iteration bars."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from benchmarks.report import Groups, iterations, memory_points, ours, sweeps

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PLAIN, MINE = "#9aa0a6", "#1a73e8"


def draw(groups: Groups, folder: Path) -> list[Path]:
    """All plots for which there are results; their paths."""
    made = [_speedups(groups, folder / "speedup.png")]
    for i, (name, providers) in enumerate(sweeps(groups).items()):
        made.append(_sweep(name, providers, folder / f"scaling-{i + 1}.png"))
    methods = iterations(groups)
    if methods:
        made.append(_iterations(methods, folder / "iteration.png"))
    return [path for path in made if path is not None]


def _speedups(groups: Groups, path: Path) -> Path | None:
    """A point per alternative and case, logarithmic; a red or unchecked kdops has none."""
    points = []
    for group, rows in groups.items():
        mine = ours(rows)
        if mine is None or not mine.green or "sweep" in mine.info:
            continue
        if mine.info.get("op") in ("iteration", "overhead"):
            continue
        for row in rows:
            if row is not mine:
                points.append((group, row.provider, row.median / mine.median))
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(9, 1 + 0.22 * len(points)))
    colours = [MINE if ratio >= 1 else "#d93025" for *_, ratio in points]
    labels = [f"{group} vs {provider}" for group, provider, _ in points]
    axes.barh(range(len(points)), [ratio for *_, ratio in points], color=colours)
    axes.set_yticks(range(len(points)), labels, fontsize=6)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("speed-up of kdops (right of 1: faster)")
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


def _iterations(labels, path: Path) -> Path:
    """Bars per method, plain PyTorch beside kdops, a panel per pair of networks."""
    figure, panels = plt.subplots(1, len(labels), figsize=(6 * len(labels), 3.8), squeeze=False)
    for axes, (label, methods) in zip(panels[0], labels.items(), strict=True):
        names = [name for name in methods if not name.startswith("part: ")]
        for shift, side, colour in ((-0.2, "published", PLAIN), (0.2, "kdops", MINE)):
            heights = [methods[name].get(side, 0.0) for name in names]
            places = [i + shift for i in range(len(names))]
            axes.bar(places, heights, 0.4, color=colour, label=side)
        axes.set_xticks(range(len(names)), names, rotation=60, fontsize=7)
        axes.set_ylabel("seconds per iteration")
        axes.set_title(label, fontsize=9)
        axes.legend(fontsize=7)
    return _save(figure, path)


def _save(figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
