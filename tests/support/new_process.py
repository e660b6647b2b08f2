"""Python programs in a process of their own, for what a process decides once: the instruction set,
Triton's interpreter, its peak memory."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = Path(__file__).parents[1]


def in_new_process(code, folder=None, **environment):
    """Runs code in a fresh interpreter, which imports kdops from `folder` if it is given."""
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env=os.environ | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )


def run_python(code, **environment):
    """What the program prints; AssertionError with the end of its errors if it fails."""
    # what this process was told comes first, also before the folder it runs in: sanitize.py names
    # a package of its own
    told = filter(None, [os.environ.get("PYTHONPATH")])
    paths = os.pathsep.join([*told, str(TESTS.parent)])
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        cwd=TESTS,
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
