"""The demo's picture: accuracy, best first, beside a training iteration's time in its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdops.demo.record import BASELINE, finals, ranked, rates, spread
from kdops.demo.report import TITLES, total

PARTS = {"network": "#c9ced6", "method": "#5aa9e6", "second": "#ffb057"}
LABELS = {"network": "networks and optimizer", "method": "method", "second": "second backward pass"}
ABOVE: dict[str, Any] = {
    "fontsize": 8.5,
    "loc": "lower left",
    "bbox_to_anchor": (0, 1),
    "ncols": 5,
    "frameon": False,
    "borderaxespad": 0,
}
SHORT = {"network": "networks", "method": "method", "second": "second pass"}
RATES = ["#1f77b4", "#2ca02c", "#d62728", "#9467bd", "#8c564b"]


def draw(data: dict[str, Any], path: Path) -> bool:
    """Writes the picture; False without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        return False
    made = figure(data)
    FigureCanvasAgg(made)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path, dpi=120)
    return True


def figure(data: dict[str, Any]) -> Any:
    """A matplotlib figure with two panels, or one where nothing was timed."""
    from matplotlib.figure import Figure

    names = ranked(data)
    timed = any("times" in data["methods"][n] for n in names)
    size = (13 if timed else 7.5, 1.6 + (0.62 if len(names) < 12 else 0.5) * len(names))
    made = Figure(figsize=size, layout="constrained")
    panels = made.subplots(1, 2 if timed else 1, squeeze=False, sharey=True)[0]
    _accuracy(panels[0], data, names)
    if timed:
        _times(panels[1], data, names)
    panels[0].set_yticks(range(len(names)), [_label(n) for n in names])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    for panel in panels:
        for row in range(0, len(names), 2):
            panel.axhspan(row - 0.5, row + 0.5, color="#f4f5f7", zorder=0)
    teacher = data["teacher"]
    made.suptitle(f"{teacher['student']} learns from {teacher['name']}:{' ' if timed else chr(10)}"
                  f"{TITLES[data['settings']['data']]}", fontsize=13)  # fmt: skip
    return made


def _label(name: str) -> str:
    return r"$\bf{student\ alone}$" if name == BASELINE else name


def _accuracy(axes: Any, data: dict[str, Any], names: list[str]) -> None:
    counts, teacher = rates(data), data["teacher"]
    for i, count in enumerate(counts):
        shift = 0.22 * (i - (len(counts) - 1) / 2)
        found = [(row, *spread(f.values())) for row, name in enumerate(names)
                 if (f := finals(data["methods"][name], count))]  # fmt: skip
        if not found:
            continue
        rows, means, deviations = zip(*found, strict=True)
        color = RATES[i % len(RATES)]
        axes.errorbar(means, [r + shift for r in rows], xerr=deviations, fmt="o", color=color,
                      capsize=3, label=f"{count} training images")  # fmt: skip
        for row, mean, deviation in found:
            axes.annotate(f"{mean:.1f}", (mean + deviation, row + shift), (5, 0), va="center",
                          textcoords="offset points", fontsize=8, color=color)  # fmt: skip
        if alone := finals(data["methods"].get(BASELINE, {}), count):
            axes.axvline(spread(alone.values())[0], color=color, linewidth=0.8, linestyle=":")
    axes.axvline(teacher["accuracy"], color="black", linewidth=0.8, linestyle="--")
    axes.grid(axis="x", alpha=0.3)
    whole = f"{teacher['accuracy']:.1f}"
    axes.set_xlabel(f"test accuracy in %: mean ± standard deviation over {_seeds(data)}\n"
                    f"dotted: the student alone; dashed: the teacher, {whole}")  # fmt: skip
    axes.legend(**ABOVE)
    axes.margins(x=0.09)


def _seeds(data: dict[str, Any]) -> str:
    counts = {len(f) for m in data["methods"].values() for n in rates(data) if (f := finals(m, n))}
    if len(counts) > 1:
        return f"{min(counts)} to {max(counts)} seeds"
    return "one seed" if counts == {1} else f"{max(counts)} seeds"


def _times(axes: Any, data: dict[str, Any], names: list[str]) -> None:
    longest = max(total(t) or 0.0 for n in names for t in _both(data, n).values())
    for row, name in enumerate(names):
        times = _both(data, name)
        for place, (backend, parts) in enumerate(times.items()):
            height = 0.36
            y = row + (place - 0.5) * height if len(times) > 1 else row
            _bar(axes, y, height, parts, longest, f" {backend}" if len(times) > 1 else "")
    for part, color in PARTS.items():
        axes.barh([0], [0], color=color, label=LABELS[part])
    axes.set_xlim(0, 1.4 * longest)
    batch, threads = data["settings"]["batch"], data["teacher"]["machine"]["threads"]
    axes.set_xlabel(f"ms per training iteration: median; batch {batch}, threads: {threads}\n"
                    "plain: the same method in plain PyTorch")  # fmt: skip
    axes.legend(**ABOVE)


def _both(data: dict[str, Any], name: str) -> dict[str, dict[str, float]]:
    times = data["methods"][name].get("times", {})
    return {backend: parts for backend, parts in times.items() if parts}


def _bar(
    axes: Any, y: float, height: float, parts: dict[str, float], longest: float, name: str
) -> None:
    """A stacked bar with each part's time, at its end the whole and what found no room in it."""
    left, rest = 0.0, ""
    for part, color in PARTS.items():
        width = parts[part]
        axes.barh(y, width, height * 0.92, left=left, color=color)
        if width > 0.06 * longest:
            axes.text(left + width / 2, y, f"{width:.0f}" if width >= 10 else f"{width:.1f}",
                      ha="center", va="center", fontsize=8)  # fmt: skip
        elif width:
            rest = f" ({SHORT[part]} {width:.1f})"
        left += width
    axes.text(left + 0.012 * longest, y, f"{left:.0f}{name}{rest}", va="center", fontsize=8)
