"""No kernel escapes: every __global__ function of every room is launched by tests/sim."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent / "csrc"
# __global__ void __launch_bounds__(...) name(...): the parentheses may nest once
KERNEL = re.compile(
    r"__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?(?:void\s+)?(\w+)\s*\("
)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)


def code(path: Path) -> str:
    return COMMENT.sub("", path.read_text())


# Whatever their names: a kernel in a launching file would be found here and be refused below.
HOLDERS = [path for path in sorted(CSRC.rglob("*.cu*")) if "__global__" in code(path)]


def name_of(path: Path) -> str:
    return "-".join(path.relative_to(CSRC).with_suffix("").parts)


def kernels(path: Path) -> list[str]:
    text = code(path)
    found = KERNEL.findall(text)
    assert len(found) == text.count("__global__"), f"{path.name}: a kernel this test cannot read"
    return found


@pytest.mark.parametrize("path", HOLDERS, ids=name_of)
def test_every_kernel_is_launched_by_the_simulator(path):
    launches = "\n".join(code(p) for p in HERE.glob("sim_*.cpp"))
    missing = [name for name in kernels(path) if not re.search(rf"\b{name}\s*[<(]", launches)]
    assert not missing, f"launch in a tests/sim/sim_*.cpp, from {name_of(path)}: {missing}"


@pytest.mark.parametrize("path", HOLDERS, ids=name_of)
def test_kernels_include_neither_torch_nor_the_cuda_runtime(path):
    includes = re.findall(r'#include\s*[<"]([^>"]+)', path.read_text())
    bad = [name for name in includes if name.startswith(("torch", "ATen", "c10", "cuda", "cub/"))]
    assert not bad, f"{path.name} includes {bad}; kernels see lane.cuh and algorithm headers only"
    assert "<<<" not in path.read_text(), f"{path.name} launches; that belongs in the .cu file"


def test_every_room_with_cuda_sources_is_read():
    rooms = {path.relative_to(CSRC).parts[0] for path in CSRC.rglob("*_cuda.cu")}
    assert rooms == {path.relative_to(CSRC).parts[0] for path in HOLDERS}
