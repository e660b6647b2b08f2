"""Runs tests under AddressSanitizer and UBSan: reads and writes past a buffer, and undefined
arithmetic, are failures.

    python tests/sanitize.py sim [pytest arguments]    the CUDA kernels on the simulator
    python tests/sanitize.py cpu [pytest arguments]    the CPU kernels, compiled into build/sanitize

The interpreter itself is not sanitized, so the runtime is preloaded into a child.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPILER = os.environ.get("CXX") or "g++"


def preloaded() -> dict[str, str]:
    """The environment of a child whose allocator is AddressSanitizer's."""
    runtime = [
        subprocess.check_output([COMPILER, f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    return os.environ | {
        "LD_PRELOAD": " ".join(runtime),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }


def run_sim(arguments: list[str]) -> int:
    os.environ["KDOPS_SIM_SANITIZE"] = "1"
    folder = ROOT / "tests" / "sim"
    # built here, where the compiler itself is not under the sanitizer
    subprocess.run([sys.executable, str(folder / "sim_build.py")], check=True)
    # --confcutdir: the conftest above tests/sim loads torch, which has no place here
    command = [sys.executable, "-m", "pytest", f"--confcutdir={folder}", str(folder), *arguments]
    return subprocess.run(command, env=preloaded(), cwd=ROOT, check=False).returncode


def build_package() -> Path:
    """A folder with a copy of kdops whose library is sanitized."""
    folder = ROOT / "build" / "sanitize"
    package = folder / "kdops"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "kdops", package, ignore=shutil.ignore_patterns("_C*", "__pycache__"))
    target = ["--build-temp", str(folder / "objects"), "--build-lib", str(folder)]
    environment = os.environ | {"KDOPS_SANITIZE": "1", "KDOPS_CUDA": "0", "KDOPS_STRICT": "0"}
    command = [sys.executable, "setup.py", "-q", "build_ext", *target]
    subprocess.run(command, env=environment, cwd=ROOT, check=True)
    return folder


def run_cpu(arguments: list[str]) -> int:
    environment = preloaded() | {"PYTHONPATH": str(build_package())}
    # not `python -m pytest`, which puts the checkout's own kdops in front
    program = "import sys; sys.path.pop(0); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["help"]
    if what not in ("sim", "cpu"):
        sys.exit(__doc__)
    sys.exit(run_sim(rest) if what == "sim" else run_cpu(rest))
