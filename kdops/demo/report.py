"""The demo's table, plot and machine description."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

import kdops

NOTE = """\
accuracy: of the student on the test images after the last epoch, mean ± standard deviation over
{seeds} seeds. ms: median training iteration (both networks, both passes, optimizer), rounds of all
methods interleaved. over ST: ms above SoftTarget. plain: the same method with kdops.backend(
"reference"), the same mathematics in plain PyTorch operators; gain: plain / kdops, of the whole
iteration. Small data and few seeds: differences within the spread mean nothing."""


def table(record: dict[str, Any]) -> str:
    """Text for the terminal."""
    settings, methods = record["settings"], record["methods"]
    rows = [["method", "accuracy %", "ms", "over ST", "plain ms", "gain"]]
    for name, m in methods.items():
        spread = "" if m["spread"] is None else f" ± {m['spread']:.2f}"
        plain = m["plain_ms"]
        rows.append([
            name, f"{m['accuracy']:.2f}{spread}", f"{m['ms']:.1f}",
            f"{m['over_soft_target_ms']:+.1f}", f"{plain:.1f}" if plain else "-",
            f"{plain / m['ms']:.2f}x" if plain else "-",
        ])  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w)
                       for i, (c, w) in enumerate(zip(row, widths, strict=True)))
             for row in rows]  # fmt: skip
    lines.insert(1, "-" * len(lines[0]))
    head = (
        f"{settings['data']}: students train on {record['train_images']} images, the teacher on "
        f"{record['teacher_images']}, both are tested on {record['test_images']}; batch "
        f"{settings['batch']}, {settings['epochs']} epochs, {settings['device']}, "
        f"{record['machine']['threads']} threads\nteacher: {record['teacher']['accuracy']:.2f} %"
    )
    return "\n".join(["", head, "", *lines, "", NOTE.format(seeds=settings["seeds"]),
                      f"{record['seconds']:.0f} s in all", ""])  # fmt: skip


def plot(record: dict[str, Any], path: Path) -> bool:
    """Accuracy curves beside bars of the iteration time; False without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    methods = record["methods"]
    figure = Figure(figsize=(12, max(4.5, 0.35 * len(methods) + 2)), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = range(1, record["settings"]["epochs"] + 1)
    for name, m in methods.items():
        curve = torch.tensor(m["curves"]).mean(0).tolist()
        left.plot(epochs, curve, label=name, linestyle="--" if name == "Student" else "-")
    left.axhline(record["teacher"]["accuracy"], color="black", linewidth=0.8, label="teacher")
    best = max(max(torch.tensor(m["curves"]).mean(0).tolist()) for m in methods.values())
    left.set(xlabel="epoch", ylabel="test accuracy, %, mean over seeds", ylim=(best - 12, None))
    left.legend(fontsize=8, ncols=2)
    names, places = list(methods), list(range(len(methods)))
    right.barh(places, [methods[n]["ms"] for n in names], 0.4, label="kdops")
    plain = [(i + 0.4, methods[n]["plain_ms"]) for i, n in enumerate(names)
             if methods[n]["plain_ms"]]  # fmt: skip
    if plain:
        right.barh(*zip(*plain, strict=True), 0.4, label="plain PyTorch")
    right.set_yticks([p + 0.2 for p in places], names)
    right.invert_yaxis()
    right.set(xlabel="ms per training iteration", title=record["machine"]["cpu"])
    right.legend(fontsize=8)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120)
    return True


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
