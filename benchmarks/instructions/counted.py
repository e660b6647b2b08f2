"""The process that callgrind watches: every case once to warm up, once counted."""

from __future__ import annotations

import ctypes
import sys

import torch

from benchmarks.instructions.cases import CASES
from kdops import _library


def main() -> None:
    """Arguments of the process: the library of marks.c, names of cases. Prints what it counted."""
    library, *names = sys.argv[1:]
    if _library.missing is not None:
        raise SystemExit(f"nothing to count: {_library.missing}")
    torch.set_num_threads(1)
    marks = ctypes.CDLL(library)
    marks.start()  # not before: to import torch takes a minute as it is
    for name in names:
        case = CASES[name]
        for _ in range(3):  # fills caches; bytecode gets specialised
            case.run(case.inputs(1))
        inputs = case.inputs(2)
        marks.count_begin()
        case.run(inputs)
        marks.count_end(name.encode())
        print(name, flush=True)
