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
SOURCES = (".h", ".cpp", ".cu", ".cuh")
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)


def code(path: Path) -> str:
    return COMMENT.sub("", path.read_text())


def holders(folder: Path) -> list[Path]:
    """Every file with a kernel, whatever its name: in a launching file it is refused below."""
    sources = (path for path in sorted(folder.rglob("*")) if path.suffix in SOURCES)
    return [path for path in sources if "__global__" in code(path)]


HOLDERS = holders(CSRC)


def name_of(path: Path) -> str:
    return "-".join(path.relative_to(CSRC).with_suffix("").parts)


def kernels(path: Path) -> list[str]:
    text = code(path)
    found = KERNEL.findall(text)
    assert len(found) == text.count("__global__"), f"{path.name}: a kernel this test cannot read"
    return found


def never_launched(path: Path) -> list[str]:
    launches = "\n".join(code(p) for p in HERE.glob("sim_*.cpp"))
    return [name for name in kernels(path) if not re.search(rf"\b{name}\s*[<(]", launches)]


@pytest.mark.parametrize("path", HOLDERS, ids=name_of)
def test_every_kernel_is_launched_by_the_simulator(path):
    missing = never_launched(path)
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


def test_cmake_compiles_every_cuda_source():
    """It finds *_cuda.cu: a source of another name would be left out of the library, silently."""
    assert [path.name for path in CSRC.rglob("*.cu") if not path.name.endswith("_cuda.cu")] == []


@pytest.mark.parametrize("name", ["a.h", "room/deep/b.cuh", "c_cuda.cu", "d.cpp"])
def test_a_planted_kernel_is_found(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    bounds = "__launch_bounds__(max(32, kThreads), 2)"
    path.write_text(f"// __global__\n__global__ void {bounds} escaped(const float* x) {{}}")
    (tmp_path / "none.h").write_text("// __global__ void mentioned_only()")
    assert holders(tmp_path) == [path]
    assert never_launched(path) == ["escaped"]
