"""The demo's options, and what each set of images makes of those that are not given."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from kdops.demo.data import CIFAR, has_mnist
from kdops.demo.methods import RECIPES

DEFAULT = ["SoftTarget", "RKD", "AttentionTransfer", "KDSVD"]
CIFAR_USUAL = {
    "images": [0],
    "batch": 128,
    "epochs": 100,
    "teacher_epochs": 100,
    "teacher_depth": 3,
}
SMALL = {"batch": 25, "epochs": 12, "teacher_depth": 2}
USUAL: dict[str, dict[str, Any]] = {
    "mnist": {**SMALL, "images": [200], "teacher_epochs": 4},
    "digits": {**SMALL, "images": [100], "teacher_epochs": 12},
    **{name: CIFAR_USUAL for name in CIFAR},
}  # fmt: skip
EPOCH = 200  # images to a student's epoch on digits, however many it has: fewer are not fewer steps


def parse(arguments: Sequence[str] | None, description: str | None = None) -> argparse.Namespace:
    parser = _parser(description)
    args = parser.parse_args(arguments)
    args.fell_back = args.data is None and not has_mnist()
    args.data = args.data or ("digits" if args.fell_back else "mnist")
    for name, value in USUAL[args.data].items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    small = args.data in ("mnist", "digits")
    args.lr = 0.1 if small else 0.05
    args.steps = args.steps or (max(EPOCH // args.batch, 1) if small else 0)
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    args.methods = _methods(parser, args.methods)
    counts = [args.epochs, args.teacher_epochs, args.seeds, args.batch]
    if min(counts) < 1 or min(args.rounds, args.steps, *args.images) < 0:
        parser.error("numbers must be positive")
    if args.page and not args.json:
        parser.error("--page needs --json, the file whose results it shows")
    return args


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kdops demo", description=description)
    add = parser.add_argument
    add(
        "--methods",
        default=",".join(DEFAULT),
        metavar="A,B,...",
        help=f"'all', or some of {', '.join(RECIPES)}",
    )
    add(
        "--data",
        choices=list(USUAL),
        help="mnist: 28 x 28 digits (the default); digits: 8 x 8; CIFAR needs --root",
    )
    add("--root", help="folder of the CIFAR pickles")
    add(
        "--images",
        type=_numbers,
        metavar="N,M,...",
        help="training images of a student, one number or several; 0: all",
    )
    add("--epochs", type=int, help="of students")
    add("--steps", type=int, help="batches to a student's epoch; CIFAR: what its images give")
    add("--teacher-epochs", type=int)
    add("--seeds", type=int, default=3, help="students per method")
    add("--batch", type=int, help="batch size")
    add("--rounds", type=int, default=3, help="timing rounds per method; 0: no timing")
    add("--device", help="cuda or cpu; default: cuda if torch sees one")
    add("--tune", action="store_true", help="first choose the weight of each method by a grid")
    add("--out", default=".", help="folder for demo.png and demo.json")
    add(
        "--json",
        metavar="FILE",
        help="results go here after each student, and runs that it holds are not run again",
    )
    add("--page", metavar="FILE", help="write a page about what --json holds, and train nothing")
    return parser  # fmt: skip


def _numbers(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


def _methods(parser: argparse.ArgumentParser, text: str) -> list[str]:
    names = list(RECIPES) if text == "all" else text.split(",")
    lower = {name.lower(): name for name in RECIPES}
    if unknown := [name for name in names if name.lower() not in lower]:
        parser.error(f"unknown methods {unknown}")
    return list(dict.fromkeys(lower[name.lower()] for name in names))
