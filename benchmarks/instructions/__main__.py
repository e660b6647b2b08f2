"""Instructions of a hot call of every op, counted by callgrind: on any machine, under any load.

    python -m benchmarks.instructions [-k WORDS] [--check | --update] [--budgets FILE]

"kdops" are those of our library with AVX2 kernels on one thread, "others" those of torch, BLAS and
the interpreter in the same call. --check fails where kdops' are 5 % above budgets.json or those of
others a quarter; --update writes it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import budgets
from benchmarks.instructions import callgrind
from benchmarks.instructions.cases import CASES

FILE = Path(__file__).with_name("budgets.json")
MARGINS = {"kdops": 1.05, "others": 1.25}


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-k", default="", metavar="WORDS", help="cases that hold all these words")
    parser.add_argument("--check", action="store_true", help="fail above the budgets")
    parser.add_argument("--update", action="store_true", help="write the budgets")
    parser.add_argument("--budgets", type=Path, default=FILE, metavar="FILE")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    if reason := callgrind.obstacle():
        print(f"benchmarks.instructions: nothing is counted: {reason}")
        return 2
    names = [name for name in CASES if all(word in name for word in options.k.split())]
    print("thousands of instructions; the first takes two minutes, as torch is imported")
    print(f"{'kdops':>9} {'others':>9}  case")
    found: budgets.Figures = {}
    for name, counted in callgrind.counts(names):
        found[name] = {whose: round(count / 1e3, 1) for whose, count in counted.items()}
        print(f"{found[name]['kdops']:9,.0f} {found[name]['others']:9,.0f}  {name}", flush=True)
    if options.update:
        budgets.save(found, options.budgets)
    complaints = []
    if options.check:
        complaints = budgets.excesses(found, budgets.load(options.budgets), MARGINS)
    for complaint in complaints:
        print(f"instructions: FAILED: {complaint} (thousands)")
    print(f"instructions: {len(found)} calls counted, {len(complaints)} above their budget")
    return 1 if complaints or not found else 0


if __name__ == "__main__":
    sys.exit(main())
