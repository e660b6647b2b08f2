"""The demo's course: train teacher and students, time every method, print, write JSON and PNG."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

import kdops
from kdops._progress import tqdm
from kdops.demo import report
from kdops.demo.data import CIFAR, Batches, DataError, Images, cifar, digits
from kdops.demo.methods import RECIPES, Prepared, Setting, sgd
from kdops.demo.nets import Net, accuracy
from kdops.training import fit

DEFAULT = ["SoftTarget", "RKD", "FSP", "KDSVD"]
BASELINE = "Student"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kdops demo", description=main.__doc__)
    parser.add_argument("--methods", default=",".join(DEFAULT), metavar="A,B,...",
                        help=f"'all', or some of {', '.join(RECIPES)}")  # fmt: skip
    parser.add_argument("--data", default="digits", choices=["digits", *CIFAR])
    parser.add_argument("--root", help="folder of the CIFAR pickles")
    parser.add_argument("--epochs", type=int, help="of students and teacher")
    parser.add_argument("--seeds", type=int, default=3, help="students per method")
    parser.add_argument("--batch", type=int, help="batch size")
    parser.add_argument("--rounds", type=int, default=5, help="timing rounds per method")
    parser.add_argument("--device", help="cuda or cpu; default: cuda if torch sees one")
    parser.add_argument("--out", default=".", help="folder for demo.png and demo.json")
    args = parser.parse_args(arguments)
    small = args.data == "digits"
    args.epochs = args.epochs or (12 if small else 100)
    args.batch = args.batch or (50 if small else 128)
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    names = list(RECIPES) if args.methods == "all" else args.methods.split(",")
    lower = {name.lower(): name for name in RECIPES}
    unknown = [n for n in names if n.lower() not in lower]
    if unknown or min(args.epochs, args.seeds, args.batch, args.rounds) < 1:
        parser.error(f"unknown methods {unknown}" if unknown else "numbers must be positive")
    args.methods = list(dict.fromkeys(lower[n.lower()] for n in names))
    return args


class Demo:
    """The data, the teacher, and the runs."""

    def __init__(self, args: argparse.Namespace, images: Images) -> None:
        self.args, self.device = args, torch.device(args.device)
        self.images = images.to(self.device)
        self.channels = images.train[0].shape[1]
        self.teacher = self.net(depth=3, seed=100)
        self.baselines: dict[int, Net] = {}
        runs = 1 + args.seeds * (1 + len(args.methods))
        self.bar = tqdm(total=runs * args.epochs, unit="epoch") if tqdm else None

    def net(self, depth: int, seed: int) -> Net:
        torch.manual_seed(seed)
        return Net(self.channels, self.images.classes, depth).to(self.device)

    def setting(self, seed: int) -> Setting:
        sample = self.images.train[0][: self.args.batch]
        return Setting(self.images, self.teacher, self.baselines.get(seed), self.args.batch,
                       self.args.epochs, seed, lambda: self.net(1, seed + 50), sample)  # fmt: skip

    def prepare(self, name: str, seed: int) -> tuple[Net, Prepared]:
        """A fresh student and what the method needs; its preparatory phase runs here."""
        student = self.net(depth=1, seed=seed)
        if name == BASELINE:
            return student, Prepared(torch.nn.Module())
        prepared = RECIPES[name].prepare(self.setting(seed), student)
        prepared.method.to(self.device)
        return student, prepared

    def train(self, name: str, seed: int, net: Net | None = None) -> list[dict[str, float]]:
        """One run of args.epochs; returns fit's rows. net: the teacher, trained alone."""
        if self.bar is not None:
            self.bar.set_description(f"{name} seed {seed}")
        student, prepared = (net, Prepared(torch.nn.Module())) if net else self.prepare(name, seed)

        def evaluate(model: torch.nn.Module) -> float:
            if self.bar is not None:
                self.bar.update()
            return accuracy(model, *self.images.test)

        optimizer = sgd(student, prepared.method)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.args.epochs)
        images = self.images.for_teacher() if net else self.images
        loader = Batches(images, self.args.batch, seed)
        rows = self.fit(name, student, prepared, loader, self.args.epochs, optimizer,
                        scheduler=schedule, evaluate=evaluate)  # fmt: skip
        if name == BASELINE:
            self.baselines[seed] = student
        return rows

    def fit(
        self, name: str, student: Net, prepared: Prepared, loader: Batches, epochs: int,
        optimizer: torch.optim.Optimizer, **options: Any,
    ) -> list[dict[str, float]]:  # fmt: skip
        recipe = RECIPES.get(name)
        return fit(student, prepared.teacher, prepared.method if recipe else None, loader,
                   epochs=epochs, layers=prepared.layers, at=prepared.at, step=prepared.step,
                   optimizer=optimizer, weight=recipe.weight if recipe else 1.0,
                   clip=bool(recipe and recipe.clip), progress=False, **options)  # fmt: skip

    def times(self, names: Sequence[str]) -> dict[str, dict[str, list[float]]]:
        """ms per iteration, rounds interleaved over methods and backends; the first is warm-up."""
        runs = []
        for name in names:
            student, prepared = self.prepare(name, 0)
            recipe = RECIPES.get(name)
            for backend in ["kdops", "plain"] if recipe and recipe.operators else ["kdops"]:
                runs.append((name, backend, student, prepared, sgd(student, prepared.method)))
        found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
        steps = tqdm(range(self.args.rounds + 1), "timing", leave=False) if tqdm else None
        for i in steps or range(self.args.rounds + 1):
            for name, backend, student, prepared, optimizer in runs:
                loader = Batches(self.images, self.args.batch, i, count=5)
                with kdops.backend("reference") if backend == "plain" else nullcontext():
                    row = self.fit(name, student, prepared, loader, 1, optimizer)[0]
                if i:
                    found[name].setdefault(backend, []).append(row["ms"])
        return found


def collect(demo: Demo) -> dict[str, Any]:
    """All runs and timings as one JSON-able record."""
    args = demo.args
    teacher = demo.train("teacher", 100, demo.teacher)
    names = [BASELINE, *args.methods]
    curves: dict[str, list[list[dict[str, float]]]] = {name: [] for name in names}
    for seed in range(args.seeds):
        for name in names:
            curves[name].append(demo.train(name, seed))
    if demo.bar is not None:
        demo.bar.close()
    timed = demo.times(list(dict.fromkeys([BASELINE, "SoftTarget", *args.methods])))
    medians = {n: {b: statistics.median(v) for b, v in t.items()} for n, t in timed.items()}
    methods = {}
    for name in names:
        final = [rows[-1]["accuracy"] for rows in curves[name]]
        methods[name] = {
            "accuracy": statistics.mean(final),
            "spread": statistics.stdev(final) if len(final) > 1 else None,
            "final": final,
            "first_and_last_loss": [[r[0]["loss"], r[-1]["loss"]] for r in curves[name]],
            "first_and_last_distill": [[r[0]["distill"], r[-1]["distill"]] for r in curves[name]],
            "ms": medians[name]["kdops"],
            "plain_ms": medians[name].get("plain"),
            "over_soft_target_ms": medians[name]["kdops"] - medians["SoftTarget"]["kdops"],
            "operators": RECIPES[name].operators if name in RECIPES else [],
            "curves": [[row["accuracy"] for row in rows] for rows in curves[name]],
        }
    return {
        "settings": {k: v for k, v in vars(args).items() if k != "out"},
        "teacher": {"accuracy": teacher[-1]["accuracy"], "curve": [r["accuracy"] for r in teacher]},
        "train_images": len(demo.images.train[1]),
        "teacher_images": len(demo.images.for_teacher().train[1]),
        "test_images": len(demo.images.test[1]),
        "methods": methods,
        "machine": report.machine(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Distils a small student from a trained teacher by several methods, and compares them."""
    args = parse(arguments)
    start = time.perf_counter()
    try:
        images = digits() if args.data == "digits" else cifar(args.data, args.root)
        demo = Demo(args, images)
    except DataError as error:
        print(f"kdops demo: {error}", file=sys.stderr)
        return 2
    record = collect(demo)
    record["seconds"] = time.perf_counter() - start
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "demo.json").write_text(json.dumps(record, indent=1))
    print(report.table(record))
    if report.plot(record, out / "demo.png"):
        print(f"wrote {out / 'demo.png'} and {out / 'demo.json'}")
    else:
        print(f"wrote {out / 'demo.json'}; for demo.png: pip install matplotlib")
    return 0
