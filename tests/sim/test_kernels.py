"""No kernel escapes: every __global__ function of every room is launched by tests/sim."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOMS = sorted((HERE.parent.parent / "csrc").glob("*/*_kernels.cuh"))
# __global__ void __launch_bounds__(...) name(...): the parentheses may nest once
KERNEL = re.compile(
    r"__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?(?:void\s+)?(\w+)\s*\("
)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)


def kernels(path: Path) -> list[str]:
    text = COMMENT.sub("", path.read_text())
    found = KERNEL.findall(text)
    assert len(found) == text.count("__global__"), f"{path.name}: a kernel this test cannot read"
    return found


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.parent.name + "-" + path.stem)
def test_every_kernel_is_launched_by_the_simulator(room):
    launches = "\n".join(COMMENT.sub("", p.read_text()) for p in HERE.glob("sim_*.cpp"))
    missing = [name for name in kernels(room) if not re.search(rf"\b{name}\s*[<(]", launches)]
    assert not missing, f"add to tests/sim/sim_{room.parent.name}.cpp: {missing}"


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.parent.name + "-" + path.stem)
def test_kernels_include_neither_torch_nor_the_cuda_runtime(room):
    includes = re.findall(r'#include\s*[<"]([^>"]+)', room.read_text())
    bad = [name for name in includes if name.startswith(("torch", "ATen", "c10", "cuda", "cub/"))]
    assert not bad, f"{room.name} includes {bad}; kernels see lane.cuh and algorithm headers only"
    assert "<<<" not in room.read_text(), f"{room.name} launches; that belongs in the .cu file"


def test_there_are_rooms():
    assert ROOMS
