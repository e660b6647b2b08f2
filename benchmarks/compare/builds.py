"""A commit's kdops, built: the package alone, so that both sides run this checkout's benchmarks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = (
    "csrc",
    "kdops",
    "cmake",
    "CMakeLists.txt",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)


def commit_of(revision: str) -> str:
    """The full name of a commit."""
    command = ["git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(f"benchmarks.compare: this repository has no commit {revision!r}")
    return run.stdout.strip()


def built(revision: str) -> Path:
    """A folder to import that commit's kdops from, kept for the next time: build/compare/COMMIT."""
    commit = commit_of(revision)
    folder = ROOT / "build" / "compare" / commit
    if (folder / "done").exists():
        return folder
    print(f"compare: building {revision} ({commit[:9]}), CPU kernels only", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    archive = subprocess.run(
        ["git", "archive", commit, "--", *PARTS], cwd=ROOT, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x"], cwd=folder, check=True, input=archive.stdout)
    build_in_place(folder)
    (folder / "done").touch()
    return folder


def build_in_place(folder: Path) -> None:
    """CPU kernels, as `make build` has them."""
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder,
        env=os.environ | {"KDOPS_CUDA": "0"},
        check=True,
    )
