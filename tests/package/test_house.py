"""The plan of the house: an op has the same name everywhere, and no file grows too long to read."""

import re
from pathlib import Path

import pytest

import kdops
from benchmarks.predict.triton_kernels import MODULES

ROOT = Path(__file__).parents[2]
ROOMS = sorted(file.parent.name for file in (ROOT / "kdops" / "ops").glob("*/registration.py"))
CODE = {".py", ".h", ".cpp", ".cu", ".cuh"}
LONGEST = 300


def expected_of(room):
    """The files that a room must have, as patterns."""
    yield f"csrc/{room}/{room}.cpp"
    yield f"csrc/{room}/README.md"
    yield f"tests/specs/{room}.py"
    yield f"tests/ops/test_{room}.py"
    yield f"benchmarks/bench_{room}.py"
    if any((ROOT / "csrc" / room).rglob("*.cu")):
        yield f"tests/sim/sim_{room}*.cpp"
        yield f"tests/sim/test_sim_{room}*.py"
    if any((ROOT / "kdops" / "ops" / room).glob("triton*.py")):
        yield f"tests/triton_kernels/test_triton_{room}*.py"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_the_same_name_everywhere(room):
    missing = [pattern for pattern in expected_of(room) if not any(ROOT.glob(pattern))]
    assert not missing, f"{room} has no {missing}"


def test_every_room_of_csrc_belongs_to_one_of_python():
    rooms = {entry.name for entry in (ROOT / "csrc").iterdir() if entry.is_dir()}
    assert rooms - {"common"} == set(ROOMS)


def test_rooms_share_code_and_do_not_call_each_other_as_operators():
    """The dispatcher's C function does not count the arguments that it is given."""
    files = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in CODE]
    assert files
    assert [p.name for p in files if "torch_call_dispatcher" in p.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("folder", ["csrc", "kdops", "tests", "benchmarks", "examples"])
def test_no_file_is_too_long(folder):
    lines = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in CODE
    }
    assert lines, folder
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_test_files_have_names_of_their_own():
    """pytest imports them by name alone: the second of two files of one name would not be read."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_the_readme_names_every_op():
    text = (ROOT / "README.md").read_text()
    tools = {"FeatureTap", "backend", "build_info", "explain"}
    assert [name for name in kdops.__all__ if name not in tools and f"`{name}`" not in text] == []


def test_every_triton_kernel_is_compiled_by_a_test():
    """What @triton.jit makes a kernel is launched by nobody here: one that the table does not know
    would first be compiled on a user's GPU."""
    table = {module.name: {kernel.name for kernel in module.kernels} for module in MODULES}
    modules = sorted((ROOT / "kdops" / "ops").glob("*/triton*.py"))
    there = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules}
    assert there
    assert table.keys() == there.keys()
    for name, path in there.items():
        assert set(re.findall(r"^def (\w+_kernel)\(", path.read_text(), re.M)) == table[name]


MAPS = ["CONTRIBUTING.md", "docs/architecture.md", *sorted(
    str(page.relative_to(ROOT)) for page in ROOT.glob("docs/decisions/*.md"))]  # fmt: skip


@pytest.mark.parametrize("page", MAPS)
def test_maps_name_what_exists(page):
    """Paths from the root, or the mere name of a file; <op> and * stand for anything."""
    text = (ROOT / page).read_text()
    named = re.findall(r"`((?:csrc|kdops|tests|benchmarks|docs|cmake|\.ci)/[\w./*<>-]*)`", text)
    paths = {re.sub(r"<\w+>\*?", "*", path).rstrip("/") for path in named}
    assert [path for path in sorted(paths) if not any(ROOT.glob(path))] == []
    files = {re.sub(r"<\w+>", "*", n) for n in re.findall(r"`([\w<>]+\.(?:h|cuh?|cpp|py))`", text)}
    places = [ROOT / name for name in ("csrc", "kdops", "tests", "benchmarks", "examples")]
    known = {path.name for path in ROOT.glob("*.py")}
    missing = [n for n in sorted(files - known) if not any(any(p.rglob(n)) for p in places)]
    assert missing == []


def test_a_plain_pytest_runs_all_but_the_two_rooms_that_compile():
    section = (ROOT / "pyproject.toml").read_text().split("testpaths = [")[1].split("]\n")[0]
    listed = set(re.findall(r'"(tests/[^"]+)"', section))
    rooms = {path.parent for path in (ROOT / "tests").glob("*/test_*.py")}
    there = {*rooms, *(ROOT / "tests").glob("test_*.py")}
    left_out = {path.relative_to(ROOT).as_posix() for path in there} - listed
    assert left_out == {"tests/sim", "tests/emulator"}
