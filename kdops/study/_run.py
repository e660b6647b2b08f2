"""The runner of all studies: arguments, progress, a JSON file that a later run goes on from."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from kdops._progress import say, tqdm
from kdops.demo.data import DataError, Images
from kdops.demo.record import write_whole
from kdops.study import _report
from kdops.study._folder import folder_images
from kdops.study._study import Lab, Study
from kdops.study.course import Course, usual_images

TEACHER_EPOCHS = 4  # on the demo's digits, of which the teacher has many more than a student


def parse(studies: Mapping[str, Study], arguments: Sequence[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {s.name:<14}{s.question}" for s in studies.values())
    parser = argparse.ArgumentParser(
        prog="python -m kdops study",
        description=f"Small experiments about distillation, on the demo's digits.\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=list(studies), help="without it: the list")
    parser.add_argument("--data", metavar="FOLDER", help="images, FOLDER/train/CLASS/* and so on")
    parser.add_argument("--size", type=int, help="pixels a side that a folder's images get")
    parser.add_argument("--rows", metavar="A,B,...", help="some of the table's rows")
    parser.add_argument("--columns", metavar="A,B,...", help="some of its columns")
    parser.add_argument("--seeds", type=int, default=2, help="students per cell")
    parser.add_argument("--epochs", type=int, help="12; of a folder 100")
    parser.add_argument("--batch", type=int, help="25; of a folder 128")
    parser.add_argument("--device", help="cuda or cpu; default: cuda if torch sees one")
    parser.add_argument("--out", default=".", help="folder for NAME.json and NAME.png")
    args = parser.parse_args(arguments)
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    args.epochs = args.epochs or (100 if args.data else 12)
    args.lr = 0.05 if args.data else 0.1  # the demo's
    args.teacher_epochs = args.epochs if args.data else min(args.epochs, TEACHER_EPOCHS)
    args.batch = args.batch or (128 if args.data else 25)
    if min(args.epochs, args.batch, args.seeds, args.size or 1) < 1:
        parser.error("numbers must be positive")
    if args.name is not None:
        for axis in ("rows", "columns"):
            known, asked = list(getattr(studies[args.name], axis)), getattr(args, axis)
            chosen = known if asked is None else [x.strip() for x in asked.split(",")]
            if set(chosen) - set(known):
                parser.error(f"--{axis} of {args.name} are some of {', '.join(known)}")
            setattr(args, axis, chosen)
    return args


def settings(args: argparse.Namespace, images: Images) -> dict[str, Any]:
    """What results depend on, besides row, column and seed."""
    return {
        "study": args.name,
        "data": images.name,
        "shape": list(images.train[0].shape[1:]),
        "train": len(images.train[1]),
        "epochs": args.epochs,
        "teacher_epochs": args.teacher_epochs,
        "batch": args.batch,
        "lr": args.lr,
    }


def restored(path: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """The record of an earlier run of these settings, or an empty one."""
    if not path.is_file():
        return {"settings": expected, "cells": {}}
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        found, _ = record["settings"], record["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no file of a study ({error}); move it away") from error
    other = {k: found.get(k) for k in expected if found.get(k) != expected[k]}
    if other:
        now = {k: expected[k] for k in other}
        raise DataError(
            f"{path} is of another run: there {other}, here {now}; use another --out, or the same "
            "settings to go on from it"
        )
    return record


def complete(study: Study, lab: Lab, record: dict[str, Any], args: Any, path: Path) -> None:
    """Trains what the record lacks of rows x columns x seeds; saves after every cell."""
    places = list(product(range(args.seeds), args.rows, args.columns))
    missing = [
        (seed, row, column)
        for seed, row, column in places
        if str(seed) not in record["cells"].get(_report.key(row, column), {})
    ]
    if len(missing) < len(places):
        say(f"{study.name}: {len(places) - len(missing)} of {len(places)} cells are in {path}")
    bar = tqdm(total=len(missing), desc=study.name, unit="cell", leave=False) if tqdm else None
    for i, (seed, row, column) in enumerate(missing):
        where = f"{row}, {column}, seed {seed}"
        if bar is not None:
            bar.set_description(f"{study.name}: {where}")
        value = study.cell(lab, row, column, seed)
        record["cells"].setdefault(_report.key(row, column), {})[str(seed)] = value
        write_whole(path, record)
        if bar is not None:
            bar.update()
        else:
            say(f"{study.name}: {i + 1} of {len(missing)}: {where}: {value}")
    if bar is not None:
        bar.close()


def run(
    studies: Mapping[str, Study], arguments: Sequence[str] | None, images: Images | None = None
) -> int:
    args = parse(studies, arguments)
    if args.name is None:
        print("\n".join(f"{s.name:<14}{s.question}" for s in studies.values()))
        return 0
    study, out = studies[args.name], Path(args.out)
    try:
        images = folder_images(args.data, args.size) if args.data else images or usual_images()
        path = out / f"{study.name}.json"
        record = restored(path, settings(args, images))
        out.mkdir(parents=True, exist_ok=True)
        lab = Lab(Course(images.to(torch.device(args.device)), args.batch, args.epochs,
                         args.teacher_epochs, lr=args.lr))  # fmt: skip
        complete(study, lab, record, args, path)
    except DataError as error:
        print(f"kdops study: {error}", file=sys.stderr)
        return 2
    shown = _report.of_seeds(record, args.seeds)
    print(_report.table(study, shown, args.rows, args.columns))
    if _report.plot(study, shown, path.with_suffix(".png"), args.rows, args.columns):
        print(f"\nwrote {path} and {path.with_suffix('.png')}")
    else:
        print(f"\nwrote {path}; for the plot: pip install matplotlib")
    return 0
