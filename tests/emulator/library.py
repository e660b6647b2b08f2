"""Builds the emulator's libraries with CMake and loads them.

The interpreter and the runtime (`runtime()`) need no torch. The device must be there before torch
is imported (`load_device()`), the schemas of kdops' ops and its kernels (`load_schemas()`,
`load_kernels()`) before kdops is: it asks at its import which of its ops have a CUDA kernel.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FOLDER = ROOT / "build" / "emulator"


class Unavailable(Exception):
    """What is missing to build the emulator, as a sentence."""


def torch_folder() -> Path:
    """Of the installed torch, which is not imported for that."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("torch is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def obstacle() -> str | None:
    home = os.environ.get("CUDA_HOME", "")
    if not any(map(shutil.which, (os.environ.get("CUDACXX", ""), f"{home}/bin/nvcc", "nvcc"))):
        return "no nvcc here (PATH, CUDA_HOME, CUDACXX), which compiles the kernels to PTX"
    for tool in ("cmake", "ninja"):
        if not shutil.which(tool):
            return f"no {tool} here (pip install {tool})"
    if (torch_folder() / "lib" / "libtorch_cuda.so").exists():
        return "torch is a CUDA build here, whose own runtime would answer (a CPU build: +cpu)"
    return None


def build(*targets: str) -> None:
    """Brings the libraries up to date. Several processes may ask at once."""
    if reason := obstacle():
        raise Unavailable(reason)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        configure = ["cmake", "-S", HERE, "-B", FOLDER, "-G", "Ninja"]
        _run([*configure, f"-DKDOPS_TORCH_DIR={torch_folder()}"])
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        chosen = [word for target in targets for word in ("--target", target)]
        _run(["cmake", "--build", FOLDER, "--parallel", jobs, *chosen])


def _run(command: list) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")


def _load(name: str) -> ctypes.CDLL:
    # global: kdops' own library, built without CUDA or with it, finds the stream function in ours
    return ctypes.CDLL(str(FOLDER / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL)


def runtime() -> ctypes.CDLL:
    """The interpreter and the CUDA runtime, with the types of what tests call."""
    library = _load("kdops_emulator")
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    signatures = {
        "emulator_objections": (ctypes.c_char_p, []),
        "emulator_launches": (ctypes.c_uint64, []),
        "emulator_warp_instructions": (ctypes.c_uint64, []),
        "emulator_translate_all": (ctypes.c_char_p, [ctypes.POINTER(ctypes.c_uint64)]),
        "emulator_set_device": (None, [ctypes.c_int] * 3),
        "emulator_set_budget": (None, [ctypes.c_uint64]),
        "emulator_set_threads": (None, [ctypes.c_uint]),
        "emulator_start_recording": (None, [ctypes.c_uint64]),
        "emulator_stop_recording": (ctypes.c_char_p, []),
        "emulator_allocate": (pointer, [size]),
        "emulator_release": (None, [pointer]),
        "emulator_write": (None, [pointer, pointer, size]),
        "emulator_read": (None, [pointer, pointer, size]),
        "emulator_memory_live": (ctypes.c_uint64, []),
        "emulator_memory_peak": (ctypes.c_uint64, []),
        "emulator_reset_peak": (None, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def faults() -> ctypes.CDLL:
    runtime()
    return _load("kdops_emulator_faults")


def load_device() -> None:
    if "torch" in sys.modules:
        raise RuntimeError("the emulated device must be loaded before torch is imported")
    _load("kdops_emulator")
    device = _load("kdops_emulator_device")
    import torch  # noqa: F401

    if not device.emulator_torch_knows_us():
        raise RuntimeError("torch asked for CUDA's hooks before the emulated device was loaded")


def load_schemas() -> None:
    """Of kdops' ops, from its binary, without importing kdops."""
    import torch

    if "kdops" in sys.modules:
        raise RuntimeError("the emulated kernels must be loaded before kdops is imported")
    torch.ops.load_library(str(_binary_of_kdops()))


def load_kernels() -> None:
    """After the schemas and before kdops."""
    _load("kdops_emulator_kernels")


def _binary_of_kdops() -> Path:
    """Beside the sources, or in the installed kdops, as kdops/_library.py looks for it."""
    import importlib.metadata

    candidates = [ROOT / "kdops" / "_C.abi3.so"]
    for installed in importlib.metadata.distributions(name="kdops"):
        candidates.append(Path(str(installed.locate_file("kdops/_C.abi3.so"))))
    found = next((c for c in candidates if c.is_file()), None)
    if found is None:
        raise Unavailable("kdops has no binary here: run `make build`")
    return found
