"""Drives CMakeLists.txt; all that describes the native build is there.

Under build isolation torch is not importable, so it is looked for, never imported: KDOPS_TORCH_DIR,
then the import path, then the site-packages of the interpreter that will use kdops. Only where none
is found does the build ask for torch. Environment: KDOPS_NATIVE=0 (pure Python), KDOPS_CUDA=0|1,
KDOPS_TORCH_DIR, KDOPS_GLIBC=2.28 (a wheel for others), KDOPS_STRICT=1, KDOPS_SANITIZE=1,
TORCH_CUDA_ARCH_LIST, MAX_JOBS, CXX, CUDA_HOME.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
OLDEST_TORCH = (2, 10)
SWITCHES = ("KDOPS_STRICT", "KDOPS_SANITIZE")
CACHED_SETTINGS = ("CXX", "CXXFLAGS", "CUDACXX", "CUDA_HOME", "TORCH_CUDA_ARCH_LIST")


def say(message: str) -> None:
    print(f"kdops: {message}", file=sys.stderr, flush=True)


def find_torch() -> Path | None:
    """The folder of the torch package that will be used at run time, without importing it."""
    if folder := os.environ.get("KDOPS_TORCH_DIR"):
        if not (Path(folder) / "version.py").is_file():
            raise SystemExit(f"kdops: KDOPS_TORCH_DIR={folder} holds no torch package (version.py)")
        return Path(folder)
    candidates = [Path(sysconfig.get_path(kind)) / "torch" for kind in ("platlib", "purelib")]
    spec = importlib.util.find_spec("torch")
    if spec and spec.submodule_search_locations:
        candidates.insert(0, Path(next(iter(spec.submodule_search_locations))))
    return next((c for c in candidates if (c / "version.py").is_file()), None)


def torch_version(torch: Path) -> str:
    match = re.search(r"__version__ *= *['\"]([^'\"]+)", (torch / "version.py").read_text())
    return match.group(1) if match else "0"


def native_obstacle(torch: Path | None) -> str | None:
    """Why this install will be pure Python, or None."""
    if os.environ.get("KDOPS_NATIVE") == "0":
        return "KDOPS_NATIVE=0"
    compiler = os.environ.get("CXX", "c++ g++ clang++").split()
    if not any(map(shutil.which, compiler)):
        return "no C++ compiler found"
    if torch is None:
        return None  # the build environment will bring one, see setup_requires
    version = torch_version(torch)
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_TORCH:
        return f"torch {version} is older than {'.'.join(map(str, OLDEST_TORCH))}"
    return None


def run(command: list[str]) -> None:
    if status := subprocess.call(command):
        raise SystemExit(
            f"kdops: '{command[0]}' failed with status {status}, see the lines above; "
            "KDOPS_CUDA=0 builds without CUDA, KDOPS_NATIVE=0 installs without compiling"
        )


class CMakeBuild(build_ext):
    """Runs CMake with Ninja where there is one, and places kdops/_C.abi3.so."""

    def build_extension(self, ext: Extension) -> None:
        torch = find_torch()
        if torch is None:
            raise SystemExit("kdops: torch was not found; install it or set KDOPS_TORCH_DIR")
        say(f"building against torch {torch_version(torch)} in {torch}")
        build = Path(self.build_temp).resolve() / "cmake"
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            *("cmake", "-S", str(ROOT), "-B", str(build)),
            f"-DKDOPS_TORCH_DIR={torch}",
            f"-DKDOPS_CUDA={os.environ.get('KDOPS_CUDA') or 'AUTO'}",
            f"-DKDOPS_GLIBC={os.environ.get('KDOPS_GLIBC') or ''}",
            *(f"-D{name}={'ON' if os.environ.get(name) == '1' else 'OFF'}" for name in SWITCHES),
        ]
        ninja = shutil.which("ninja")
        if ninja:
            configure += ["-G", "Ninja"]
        # A cache of other tools or settings must not leak in: CMake would keep the architectures of
        # the first build, and the ninja of a build environment that pip has long removed.
        tools = [ninja, shutil.which("cmake")]
        settings = repr([configure, tools, [os.environ.get(name) for name in CACHED_SETTINGS]])
        stamp = build / "kdops-settings.txt"
        same = stamp.is_file() and stamp.read_text() == settings and not self.force
        run(configure if same else [*configure, "--fresh"])
        stamp.write_text(settings)
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        run(["cmake", "--build", str(build), "--parallel", jobs])
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # a copy beside it, then a rename: a running process keeps the library it has mapped
        temporary = target.with_suffix(".new")
        shutil.copy2(build / "_C.abi3.so", temporary)
        os.replace(temporary, target)


class AnyPython(bdist_wheel):
    """The library uses torch's symbols and none of Python's: a wheel serves every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        platform = super().get_tag()[2]
        if glibc := os.environ.get("KDOPS_GLIBC"):  # cmake/KdopsGlibc.cmake links for this one
            platform = re.sub("^linux_", f"manylinux_{glibc.replace('.', '_')}_", platform)
        return "py3", "none", platform


torch_dir = find_torch()
obstacle = native_obstacle(torch_dir)
if obstacle:
    say(f"pure-Python install, the reference implementation will serve ({obstacle})")
setup(
    ext_modules=[] if obstacle else [Extension("kdops._C", [], py_limited_api=True)],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": AnyPython},
    setup_requires=[] if obstacle or torch_dir else ["torch>=2.10"],
)
