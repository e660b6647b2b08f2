"""The demo's networks and runs: a teacher, and students by every method, number of images, seed."""

from __future__ import annotations

import argparse
from functools import cached_property, lru_cache
from typing import Any

import torch

from kdops.demo.data import Batches, Images
from kdops.demo.methods import RECIPES, Prepared, Setting, fit_by, sgd
from kdops.demo.nets import Net, accuracy
from kdops.demo.record import BASELINE

GRID = (0.2, 1.0, 5.0)  # times the weight of a recipe; the same for all methods
TUNING = 1000  # the seed of the students that the grid trains: none that the results show


class Demo:
    """The data, the teacher (trained when first asked for), and the students' runs."""

    def __init__(self, args: argparse.Namespace, images: Images) -> None:
        self.args, self.device = args, torch.device(args.device)
        self.images = images.to(self.device)
        available = len(self.images.for_teacher().train[1])
        args.images = sorted({n or available for n in args.images})
        self.baselines: dict[tuple[int, int], Net] = {}
        self.part = lru_cache(len(args.images) + 1)(self.images.part)
        self.bar: Any = None

    def net(self, depth: int, seed: int) -> Net:
        torch.manual_seed(seed)
        net = Net(self.images.train[0].shape[1], self.images.classes, depth)
        net.to(self.device)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net

    @cached_property
    def teacher(self) -> Net:
        net = self.net(self.args.teacher_depth, 100)
        images = self.images.for_teacher()
        self._describe(f"teacher, {len(images.train[1])} images")
        self.train(BASELINE, net, Prepared(torch.nn.Module()),
                   self.loader(images, 100, len(images.train[1]) // self.args.batch),
                   self.args.teacher_epochs)  # fmt: skip
        return net

    def setting(self, images: int, seed: int, baseline: bool = False) -> Setting:
        part = self.part(images, seed)
        return Setting(part, self.teacher, self.baseline(images, seed) if baseline else None,
                       self.args.batch, self.args.epochs, seed, lambda: self.net(1, seed + 50),
                       part.train[0][: self.args.batch], self.args.lr)  # fmt: skip

    def baseline(self, images: int, seed: int) -> Net:
        """The student of that seed that is trained alone."""
        if (images, seed) not in self.baselines:
            self.student(BASELINE, images, seed)
        return self.baselines[images, seed]

    def prepare(self, name: str, images: int, seed: int) -> tuple[Net, Prepared]:
        """A fresh student and what the method needs; its preparatory phase runs here."""
        if name == BASELINE:
            return self.net(1, seed), Prepared(torch.nn.Module())
        setting = self.setting(images, seed, RECIPES[name].baseline)
        student = self.net(1, seed)
        prepared = RECIPES[name].prepare(setting, student)
        prepared.method.to(self.device)
        return student, prepared

    def student(
        self, name: str, images: int, seed: int, weight: float | None = None
    ) -> tuple[Net, list[dict[str, float]]]:
        """One trained student, and fit's rows."""
        student, prepared = self.prepare(name, images, seed)
        self._describe(f"{name}, {images} images, seed {seed}")
        loader = self.loader(self.part(images, seed), seed, self.args.steps)
        rows = self.train(name, student, prepared, loader, self.args.epochs, weight)
        if name == BASELINE:
            self.baselines[images, seed] = student
        return student, rows

    def train(
        self, name: str, net: Net, prepared: Prepared, loader: Batches, epochs: int,
        weight: float | None = None,
    ) -> list[dict[str, float]]:  # fmt: skip
        optimizer = sgd(net, prepared.method, lr=self.args.lr)
        if self.bar is not None:
            loader.passed = lambda: self.bar.update(len(loader))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        return fit_by(RECIPES.get(name), net, prepared, loader, optimizer, epochs, weight=weight,
                      scheduler=schedule, step=prepared.step)  # fmt: skip

    def loader(self, images: Images, seed: int, count: int | None) -> Batches:
        return Batches(images, self.args.batch, seed, count or None)

    def steps(self, students: int, teacher: bool = True) -> int:
        """Of so many students and the teacher."""
        args = self.args
        known = len(self.images.for_teacher().train[1]) // args.batch
        own: int = args.epochs * (args.steps or max(args.images) // args.batch)
        return students * own + (args.teacher_epochs * known if teacher else 0)

    def _describe(self, text: str) -> None:
        if self.bar is not None:
            self.bar.set_description(text)

    def grid(self, name: str) -> dict[str, float]:
        """Accuracy by weight, on images that are neither the test's nor its student's."""
        images = self.args.images[len(self.args.images) // 2]
        held = self.images.validation(images, TUNING)
        found = {}
        for weight in (weight_of(name) * factor for factor in GRID):
            student, _ = self.student(name, images, TUNING, weight)
            found[f"{weight:g}"] = accuracy(student, *held)
        return found


def weight_of(name: str) -> float:
    """The recipe's; of the student alone, 1."""
    return RECIPES[name].weight if name in RECIPES else 1.0


def best(grid: dict[str, float], usual: float) -> float:
    """The weight of the best accuracy; of equal ones the nearest to the recipe's."""

    def key(text: str) -> tuple[float, float]:
        far = max(float(text) / usual, usual / float(text))
        return grid[text], -far

    return float(max(grid, key=key))
