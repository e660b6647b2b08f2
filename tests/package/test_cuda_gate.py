"""The compile gate: csrc/**/*_cuda.cu for sm_80 and sm_90, where one spilled register is an error.

Device code only: no linking, no GPU. What passed is remembered in build/gate by the contents of
the files it read, so that an unchanged room costs nothing. Nor is compiled again what another build
has compiled as strictly: an install with KDOPS_STRICT=1, and for sm_90 the emulator's kernels.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

import kdops
from tests.emulator import library

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(ROOT.glob("csrc/**/*_cuda.cu"))
ARCHS = ("80", "90")
FLAGS = ["-fatbin", "-std=c++20", "-O3", "--expt-relaxed-constexpr", "--threads=0"]
FLAGS += ["-Xptxas=--warn-on-spills,-Werror", "-Xcompiler=-Wall,-Wextra,-Wno-unknown-pragmas"]
FLAGS += ["-Werror=all-warnings", "-DTORCH_TARGET_VERSION=0x020a000000000000"]


@pytest.fixture(scope="module")
def nvcc() -> str:
    home = os.environ.get("CUDA_HOME", "")
    found = shutil.which(f"{home}/bin/nvcc") or shutil.which("nvcc")
    if found is None:
        pytest.skip("no nvcc here (PATH, CUDA_HOME): the CUDA sources are not compiled")
    return found


@pytest.fixture(scope="module")
def torch_include() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "include"


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else ""


def compile_device_code(
    nvcc: str, torch_include: Path, source: Path, folder: Path, archs: Iterable[str] = ARCHS
) -> str:
    """The compiler's complaints about one source; empty when all is well."""
    command = [nvcc, *FLAGS, f"-I{ROOT / 'csrc'}", "-isystem", str(torch_include), str(source)]
    for arch in archs:
        command += ["-gencode", f"arch=compute_{arch},code=sm_{arch}"]
    passed, depends = folder / f"{source.stem}.json", folder / f"{source.stem}.d"
    if passed.is_file():
        known = json.loads(passed.read_text())
        same = all(digest(name) == value for name, value in known["files"].items())
        if same and known["command"] == command:
            return ""
    output = ["-o", str(folder / f"{source.stem}.fatbin"), "-MD", "-MF", str(depends)]
    result = subprocess.run([*command, *output], capture_output=True, text=True)
    if result.returncode:
        return result.stdout + result.stderr
    names = depends.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    files = {name: digest(name) for name in names if Path(name).is_file()}
    passed.write_text(json.dumps({"command": command, "files": files}))
    return ""


def installed_strictly() -> set[str]:
    strict = os.environ.get("KDOPS_STRICT") == "1"
    return set(str(kdops.build_info().get("cuda_archs", "")).split(",")) if strict else set()


@pytest.mark.slow  # minutes
@pytest.mark.skipif(library.obstacle() is not None, reason=f"no emulator: {library.obstacle()}")
def test_the_emulators_kernels_compile_without_spills():
    library.build("kdops_emulator_kernels")


@pytest.mark.slow  # minutes, unless the install was the gate
@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.stem)
def test_compiles_without_spills(nvcc, torch_include, source):
    by_the_emulator = set() if library.obstacle() else {"90"}
    if not (archs := sorted({*ARCHS} - installed_strictly() - by_the_emulator)):
        pytest.skip("the installed library, built with KDOPS_STRICT=1, and the emulator's are it")
    folder = ROOT / "build" / "gate"
    folder.mkdir(parents=True, exist_ok=True)
    complaints = compile_device_code(nvcc, torch_include, source, folder, archs)
    assert not complaints, complaints


SPILLING = """
__global__ void __launch_bounds__(1024, 2) spilling_kernel(const float* in, float* out) {
  float values[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) values[i] = in[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) out[i * 1024 + threadIdx.x] = values[i] * values[63 - i];
}
"""


def test_gate_refuses_a_spill(nvcc, torch_include, tmp_path):
    source = tmp_path / "spilling_cuda.cu"
    source.write_text(SPILLING)
    complaints = compile_device_code(nvcc, torch_include, source, tmp_path)
    assert "Registers are spilled" in complaints
    assert not list(tmp_path.glob("*.json"))  # a failure is never remembered as a pass


def test_gate_has_something_to_compile():
    assert SOURCES
