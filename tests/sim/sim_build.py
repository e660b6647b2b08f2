"""Compiles tests/sim/sim_*.cpp into the module kdops_sim and loads it; never part of the package.

Objects are cached in build/sim and rebuilt when a file they include has changed. With
KDOPS_SIM_SANITIZE=1 everything is compiled with AddressSanitizer and UBSan; the interpreter must
then preload their runtime (tests/sanitize.py).
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FLAGS = ["-std=c++20", "-fPIC", "-DKDOPS_SIM", "-Wall", "-Wextra", "-Werror", "-g1"]
FLAGS += ["-Wno-unknown-pragmas", "-fvisibility=hidden", "-fno-strict-aliasing"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-sanitize=vptr"]
SANITIZE += ["-fno-omit-frame-pointer", "-O1"]
SCHEDULES = [("forward", 1), ("reverse", 1), ("random", 1), ("random", 2), ("random", 3)]


class Unavailable(Exception):
    """What is missing to build the simulator, as a sentence."""


class Broken(Exception):
    """A command and the compiler's messages."""


def sanitized() -> bool:
    return os.environ.get("KDOPS_SIM_SANITIZE") == "1"


def compiler() -> str:
    candidates = [os.environ.get("CXX", ""), "g++", "c++", "clang++"]
    found = next((c for c in candidates if c and shutil.which(c)), None)
    if found is None:
        raise Unavailable("no C++ compiler found (g++, clang++ or $CXX)")
    return found


def include_flags() -> list[str]:
    python = sysconfig.get_paths()["include"]
    if not (Path(python) / "Python.h").is_file():
        raise Unavailable(f"Python.h is not in {python} (install the interpreter's headers)")
    try:
        import pybind11
    except ImportError as error:
        raise Unavailable("pybind11 is not installed (pip install 'kdops[test]')") from error
    system = ["-isystem", pybind11.get_include(), "-isystem", python]
    return [f"-I{ROOT / 'csrc'}", f"-I{HERE}", *system]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def compile_one(source: Path, folder: Path, flags: list[str]) -> Path:
    """The object of one source; reused when the flags and every included file are unchanged."""
    target, record = folder / f"{source.stem}.o", folder / f"{source.stem}.json"
    command = [compiler(), *flags, "-c", str(source), "-o", str(target)]
    if target.is_file() and record.is_file():
        known = json.loads(record.read_text())
        if known["command"] == command and all(
            digest(Path(name)) == value for name, value in known["files"].items()
        ):
            return target
    record.unlink(missing_ok=True)
    depends = folder / f"{source.stem}.d"
    result = subprocess.run([*command, "-MMD", "-MF", str(depends)], capture_output=True, text=True)
    if result.returncode:
        raise Broken(f"{' '.join(command)}\n{result.stderr}")
    text = depends.read_text().replace("\\\n", " ").split(":", 1)[1]
    files = {name: digest(Path(name)) for name in text.split()}
    record.write_text(json.dumps({"command": command, "files": files}))
    return target


def build() -> Path:
    """Path of an up-to-date kdops_sim module."""
    folder = ROOT / "build" / "sim" / ("sanitize" if sanitized() else "plain")
    folder /= f"{sys.implementation.cache_tag}"
    folder.mkdir(parents=True, exist_ok=True)
    flags = FLAGS + (SANITIZE if sanitized() else ["-O2"]) + include_flags()
    sources = sorted(HERE.glob("sim_*.cpp"))
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)) as pool:
        objects = list(pool.map(lambda source: compile_one(source, folder, flags), sources))
    key = hashlib.sha256("".join(digest(o) for o in objects).encode()).hexdigest()[:16]
    target = folder / key / f"kdops_sim{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not target.is_file():
        for old in folder.glob("*/kdops_sim*"):
            shutil.rmtree(old.parent)
        target.parent.mkdir()
        link = [compiler(), "-shared", *map(str, objects), "-o", str(target)]
        subprocess.run(link + (SANITIZE[:1] if sanitized() else []), check=True)
    return target


def build_alone() -> Path:
    """build(), one process at a time."""
    folder = ROOT / "build"
    folder.mkdir(exist_ok=True)
    with open(folder / "sim.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build()


def load() -> ModuleType:
    path = build_alone()
    spec = importlib.util.spec_from_file_location("kdops_sim", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(build_alone())
