"""One name, one definition: rooms keep to their namespaces, and the linker compares their types.

What breaks the rule is compiled without a word and goes wrong when the compiler stops to inline.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
COMPILE = ["-std=c++20", "-O0", "-w", "-fPIC", "-flto=1", "-DKDOPS_ISA=baseline", f"-I{CSRC}"]
LINK = ["-shared", "-O0", "-flto=1", "-Wodr", "-Werror=odr"]


def files() -> list[Path]:
    return [
        path for path in sorted(CSRC.rglob("*")) if path.suffix in {".h", ".cpp", ".cu", ".cuh"}
    ]


@pytest.fixture(scope="module")
def gxx() -> str:
    if (found := shutil.which("g++")) is None:
        pytest.skip("no g++ here: the types of the instruction-set files are not compared")
    return found


def breaches(gxx: str, sources: list[Path], folder: Path) -> str:
    """The complaints about types of one name in several sources; empty when all is well."""
    objects = [folder / f"{number}.o" for number in range(len(sources))]
    for source, target in zip(sources, objects, strict=True):
        subprocess.run([gxx, *COMPILE, "-c", str(source), "-o", str(target)], check=True)
    link = [gxx, *LINK, *map(str, objects), "-o", str(folder / "linked.so")]
    result = subprocess.run(link, capture_output=True, text=True)
    return result.stderr if result.returncode else ""


@pytest.mark.slow
def test_types_of_all_rooms_agree(gxx, tmp_path):
    """Every *_simd.cpp of one instruction set; what passed is remembered by the files' contents."""
    text = b"".join(path.read_bytes() for path in [Path(__file__), *files()])
    passed = ROOT / "build" / "gate" / "one_definition"
    digest = hashlib.sha256(text).hexdigest()
    if passed.is_file() and passed.read_text() == digest:
        return
    complaints = breaches(gxx, sorted(CSRC.rglob("*_simd.cpp")), tmp_path)
    assert not complaints, complaints
    passed.parent.mkdir(parents=True, exist_ok=True)
    passed.write_text(digest)


@pytest.mark.parametrize(("room", "refused"), [("rbf", True), ("align", False)])
def test_gate_refuses_two_definitions(gxx, tmp_path, room, refused):
    """Two rooms' structs Rows once were one: refused in one namespace, well in two."""
    sources = []
    for of, field in (("rbf", "const float* data"), (room, "double size")):
        sources.append(tmp_path / f"{len(sources)}.cpp")
        rows = f"struct Rows {{ {field}; }};\nRows rows_{len(sources)}() {{ return {{}}; }}\n"
        sources[-1].write_text(f"namespace kdops::{of}::KDOPS_ISA {{\n{rows}}}\n")
    complaints = breaches(gxx, sources, tmp_path)
    assert ("struct Rows" in complaints) == ("One Definition Rule" in complaints) == refused


def test_rooms_keep_to_their_namespace():
    """Same-named functions and constants of two rooms, which the linker cannot tell, never meet."""
    for path in files():
        room = path.relative_to(CSRC).parts[0]
        inside = ("" if room == "common" else f"::{room}") + "(::(KDOPS_ISA|KDOPS_WHERE|gpu))?"
        for opened in re.findall(r"^namespace +(\w[\w:]*) *\{", path.read_text(), re.M):
            assert re.fullmatch(rf"kdops{inside}", opened), f"{path}: namespace {opened}"
