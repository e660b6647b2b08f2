"""Predicted cost of the CUDA kernels on an H200, without one.

    python -m benchmarks.predict [-k "WORDS"] [--quick] [--kernels] [--json FILE]
                                 [--check | --update] [--budgets FILE]

Every case runs through torch on the emulated device (tests/emulator, needs nvcc), which executes
the PTX that nvcc makes for sm_90 and keeps the time by a model. -k picks the cases whose name holds
all the words. --check compares with budgets.json and fails where a figure is 5 % above it; --update
writes the figures there. Nothing here has been measured on a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import budgets
from benchmarks.predict.budgets import FILE, MARGINS, figures
from benchmarks.predict.model import Prediction, prediction_of
from tests.emulator import library

BLOCKS_RUN = 2  # of a launch, in a case that may be sampled


def predicted(case: Any, runtime: Any) -> Prediction:
    """One call of the case, recorded."""
    inputs = case.inputs(0, "cuda", case.times)
    runtime.emulator_start_recording(BLOCKS_RUN if case.sampled else 0)
    try:
        case.run(*inputs)
    finally:
        launches = json.loads(runtime.emulator_stop_recording())
    input_bytes = case.times * sum(t.numel() * t.element_size() for t in inputs)
    return prediction_of(launches, input_bytes, case.times)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def line(case: Any, found: Prediction) -> str:
    cells = [number(v) for v in (found.floor, found.predicted, case.bar, case.target)]
    return (
        f"{case.name:<30} {len(found.kernels):>3} {found.instructions / 1e6:>9.2f} "
        + " ".join(f"{cell:>7}" for cell in cells)
        + f"  {found.dominated_by()}"
    )


def kernel_lines(found: Prediction) -> list[str]:
    names = ("blocks", "threads", "registers", "shared", "resident", "spilled", "local", "code")
    rows = []
    for kernel in found.kernels:
        cells = ", ".join(f"{name} {kernel[name]}" for name in names)
        rows.append(f"    {kernel['predicted']:8.2f} us {kernel['kernel']}: {cells}")
    total = sum(found.counts.values())
    shares = sorted(found.counts.items(), key=lambda share: -share[1])
    classes = ", ".join(f"{name} {count / total:.0%}" for name, count in shares if count)
    return [*rows, f"    PTX instructions: {classes}"]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predict", description=__doc__)
    parser.add_argument("-k", default="", metavar="WORDS", help="cases that hold all these words")
    parser.add_argument("--quick", action="store_true", help="without the slow cases")
    parser.add_argument("--kernels", action="store_true", help="a line for every launch, too")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="fail above the budgets")
    parser.add_argument("--budgets", type=Path, default=FILE)
    parser.add_argument("--update", action="store_true", help="write the budgets")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    if reason := library.obstacle():
        print(f"benchmarks.predict: no emulated device: {reason}")
        return 2
    runtime = importlib.import_module("tests.emulator.session").runtime  # before torch
    cases = importlib.import_module("benchmarks.predict.cases").CASES
    print("predicted for an H200 (sm_90), not measured; microseconds, without launch overhead")
    print(f"{'case':<30} {'run':>3} {'M instr.':>9}   floor predict.   bar  target  dominated by")
    record, found = {}, {}
    for case in cases:
        wanted = all(word in case.name for word in options.k.split())
        if not wanted or (options.quick and case.slow):
            continue
        prediction = predicted(case, runtime)
        found[case.name] = figures(prediction)
        record[case.name] = {**asdict(prediction), "bar": case.bar, "target": case.target}
        print(line(case, prediction), flush=True)
        if options.kernels:
            print("\n".join(kernel_lines(prediction)))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if options.update:
        budgets.save(found, options.budgets)
    complaints = []
    if options.check:
        complaints = budgets.excesses(found, budgets.load(options.budgets), MARGINS)
    print("\n".join(complaints), end="\n" if complaints else "")
    return 1 if complaints else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # autograd's thread of the emulated device may be at its last Python object; an interpreter that
    # ends under it takes the process down: "terminate called without an active exception"
    os._exit(status)
