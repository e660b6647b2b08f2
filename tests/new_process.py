"""Python programs in a process of their own, for what a process decides once: the instruction set,
Triton's interpreter, its peak memory."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_python(code, **environment):
    """What the program prints; AssertionError with the end of its errors if it fails."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def peak_growth_mb(warm_up, setup, step):
    """By how much `step` raises the peak resident size; its inputs, made by `setup`, not counted.

    `warm_up` is the same call on something small: what torch itself needs once. Linux only, and not
    getrusage: its ru_maxrss starts with that of the process which started this one (pytest's, often
    more than the step could add).
    """
    lines = (
        "import torch, kdops",
        "def peak():",
        "    status = open('/proc/self/status').read()",
        "    return int(status.partition('VmHWM:')[2].split()[0]) / 1024",
        warm_up,
        setup,
        "before = peak()",
        step,
        "print(peak() - before)",
    )
    return float(run_python("\n".join(lines), OMP_NUM_THREADS="2"))  # scratch is per thread
