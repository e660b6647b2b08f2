"""The demo's results in a JSON file: written after every student, read to go on from there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from kdops.demo.data import DataError

BASELINE = "Student"  # trained alone
FIXED = ("data", "batch", "epochs", "steps", "teacher_epochs", "teacher_depth", "lr")


class Record:
    """data: settings, machine, teacher, and methods -> weight, accuracy[images][seed], times."""

    def __init__(self, path: Path, settings: dict[str, Any], resume: bool) -> None:
        self.path = path
        fixed = {name: settings[name] for name in FIXED}
        self.data: dict[str, Any] = {"settings": fixed, "methods": {}, "seconds": 0.0}
        if resume and path.exists():
            self.data = read(path)
            if other := [n for n in FIXED if self.data["settings"].get(n) != fixed[n]]:
                raise DataError(
                    f"{path} holds runs of another {', '.join(other)}: "
                    f"{[self.data['settings'].get(n) for n in other]}, not "
                    f"{[fixed[n] for n in other]}; give another --json"
                )

    def method(self, name: str, weight: float) -> dict[str, Any]:
        """What is known of a method; what was found with another weight is dropped."""
        known: dict[str, Any] = self.data["methods"].setdefault(name, {"weight": weight})
        if known["weight"] != weight:
            known = self.data["methods"][name] = {
                k: v for k, v in known.items() if k in ("grid", "times")
            } | {"weight": weight}
        known.setdefault("accuracy", {})
        return known

    def has(self, name: str, weight: float, images: int, seed: int) -> bool:
        return str(seed) in self.method(name, weight)["accuracy"].get(str(images), {})

    def add(self, name: str, weight: float, images: int, seed: int, accuracy: float) -> None:
        found = self.method(name, weight)["accuracy"].setdefault(str(images), {})
        found[str(seed)] = accuracy
        self.save()

    def save(self) -> None:
        write_whole(self.path, self.data)


def write_whole(path: Path, data: dict[str, Any]) -> None:
    """Or not at all: a run that is stopped leaves a file that can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(data, indent=1) + "\n")
    os.replace(new, path)


def read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        if not {"settings", "methods"} <= set(data):
            raise ValueError("it has no settings and methods")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} holds no results of the demo ({error})") from error
    return data


def finals(method: dict[str, Any], images: int) -> dict[int, float]:
    """Accuracy by seed."""
    return {int(s): a for s, a in method.get("accuracy", {}).get(str(images), {}).items()}


def rates(data: dict[str, Any]) -> list[int]:
    """All numbers of training images of which there are results."""
    return sorted({int(n) for m in data["methods"].values() for n in m.get("accuracy", {})})


def spread(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard deviation, which is zero of one value."""
    found = list(values)
    return mean(found), stdev(found) if len(found) > 1 else 0.0


def ranked(data: dict[str, Any], images: int | None = None) -> list[str]:
    """Methods with a result at that number of images, best first; None: at that with most."""
    if images is None:
        known = [n for m in data["methods"].values() for n in rates(data) if finals(m, n)]
        images = max(known, key=lambda n: (known.count(n), n))
    means = {n: mean(f.values()) for n, m in data["methods"].items() if (f := finals(m, images))}
    return sorted(means, key=lambda name: -means[name])
