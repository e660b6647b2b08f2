"""Loads the compiled library and tells what it holds.

Importing kdops never fails for want of a binary: without one every op runs its reference
implementation, and one warning says so with the cure.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

VERSION = "0.1.0"  # the one place; pyproject.toml must agree (tests/package/test_build.py)
_NAME = "_C.abi3.so"
_INSTRUCTION_SETS = ("baseline", "avx2", "avx512")  # the names of csrc: isa_name
_CURE = "run `pip install .` or `make build` again"


def _find() -> Path | None:
    """The binary beside this file; in a source checkout without one, that of the installed kdops.

    `python -m kdops` in a clone imports the clone's sources after `pip install .` has put the
    binary into site-packages.
    """
    candidates = [Path(__file__).with_name(_NAME)]
    for installed in importlib.metadata.distributions(name="kdops"):
        candidates.append(Path(str(installed.locate_file(f"kdops/{_NAME}"))))
    return next((c for c in candidates if c.is_file()), None)


def _check_environment() -> None:
    """The library takes the widest set where KDOPS_ISA names one that the processor lacks."""
    wish = os.environ.get("KDOPS_ISA")
    if wish and wish not in _INSTRUCTION_SETS:
        names = ", ".join(_INSTRUCTION_SETS)
        raise ValueError(f"KDOPS_ISA: expected one of {names}, got {wish!r}")


def _load() -> tuple[ctypes.CDLL | None, str | None]:
    path = _find()
    if path is None:
        return None, (
            "this install holds no compiled kernels (pure-Python install): reinstall it with a "
            "C++ compiler present ('pip install --force-reinstall .')"
        )
    try:
        handle = ctypes.CDLL(str(path))
        version = _info_of(handle)["kdops"]
        if version != VERSION:
            return None, f"the compiled library is of kdops {version}, not of {VERSION}: {_CURE}"
        torch.ops.load_library(str(path))
        if difference := _difference(Path(__file__).parent.parent / "csrc"):
            return None, f"the compiled library is older than its sources ({difference}): {_CURE}"
        return handle, None
    except OSError as error:
        return None, f"the compiled kernels could not be loaded ({error})"


def _info_of(handle: ctypes.CDLL) -> dict[str, str]:
    handle.kdops_build_info.restype = ctypes.c_char_p
    info: dict[str, str] = json.loads(handle.kdops_build_info().decode())
    return info


def _difference(csrc: Path) -> str | None:
    """The first op that csrc/ defines otherwise than the loaded library; None if there is none.

    In a checkout the library may be older than the code beside it and of the same version. An
    installed package has no csrc/ beside it: its library and its code come from one build.
    """
    for schema in _schemas(csrc):
        name = schema.partition("(")[0]
        op = getattr(torch.ops.kdops, name, None)
        if op is None:
            return f"it has no op {name}"
        if str(op.default._schema) != f"kdops::{schema}":
            return f"its op {name} takes or returns something else"
    return None


def _schemas(csrc: Path) -> Iterator[str]:
    """The text of every m.def("...") in csrc/<op>/<op>.cpp."""
    for folder in sorted(entry for entry in csrc.glob("*") if entry.is_dir()):
        source = folder / f"{folder.name}.cpp"
        text = source.read_text(encoding="utf-8") if source.is_file() else ""
        for literals in re.findall(r'm\.def\(\s*((?:"[^"]*"\s*)+)\)', text):
            yield "".join(re.findall(r'"([^"]*)"', literals))


_check_environment()
_handle, missing = _load()
"""`missing` is None when the binary is loaded, otherwise the reason as a sentence."""

_warned = False


def warn_once_if_missing() -> None:
    global _warned
    if missing and not _warned:
        _warned = True
        warnings.warn(f"kdops: {missing}; the slower reference implementation serves", stacklevel=3)


def _native_info() -> dict[str, str]:
    return {} if _handle is None else _info_of(_handle)


def build_info() -> dict[str, str]:
    """What this install holds: versions, compiled instruction sets and CUDA architectures.

    Keys: kdops, torch, native ("yes" or the reason why not) and, with a binary,
    instruction_sets, active_instruction_set, cuda (compiler version, "" without), cuda_archs
    (those with binaries), cuda_ptx (those that newer GPUs translate), compiler, torch_target.
    """
    info = {"kdops": VERSION, "torch": torch.__version__, "native": missing or "yes"}
    return info | _native_info()


@cache
def has_cuda_kernels() -> bool:
    """Whether the binary was compiled with CUDA kernels. Asked at every call on a GPU."""
    return bool(_native_info().get("cuda"))


def has_binary_for(major: int, minor: int, archs: str) -> bool:
    """Whether cuda_archs of build_info() serve a GPU.

    A kernel's binary serves its own major version, from its own minor version on.
    """
    numbers = [int(number) for number in re.findall(r"\d+", archs)]
    return any(number // 10 == major and number % 10 <= minor for number in numbers)


@cache
def unserved_gpu() -> str | None:
    """A GPU of this machine that the compiled CUDA kernels do not run on, as a sentence."""
    info = _native_info()
    translated = [int(number) for number in re.findall(r"\d+", info.get("cuda_ptx", ""))]
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        translates = any(number <= 10 * major + minor for number in translated)
        if not translates and not has_binary_for(major, minor, info.get("cuda_archs", "")):
            return (
                f"this install has no CUDA kernels for compute capability {major}.{minor} "
                f"(TORCH_CUDA_ARCH_LIST={major}.{minor} when it is compiled)"
            )
    return None
