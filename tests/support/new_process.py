"""Python programs in a process of their own, for what a process decides once: the instruction set,
Triton's interpreter, its peak memory."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = Path(__file__).parents[1]
LONGEST = 600  # seconds


def finished(command, **options):
    """The finished process, with what it printed. One that takes too long is ended together with
    what it started, which would keep its pipes open and pytest waiting."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes, **options)
    try:
        printed, errors = process.communicate(timeout=LONGEST)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return subprocess.CompletedProcess(command, process.returncode, printed, errors)


def in_new_process(code, folder=None, **environment):
    """Runs code in a fresh interpreter, which imports kdops from `folder` if it is given."""
    command = [sys.executable, "-W", "always", "-c", code]
    return finished(command, env=os.environ | environment, cwd=folder)


def run_python(code, **environment):
    """What the program prints; AssertionError with the end of its errors if it fails."""
    # what this process was told comes first, also before the folder it runs in: sanitize.py names
    # a package of its own
    told = filter(None, [os.environ.get("PYTHONPATH")])
    paths = os.pathsep.join([*told, str(TESTS.parent)])
    result = finished(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        cwd=TESTS,
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
