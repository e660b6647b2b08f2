"""What a room's kernels take is said once in C++ and once in Python: the two must agree."""

import re
from importlib import import_module
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
ROOMS = sorted(header.parent.name for header in CSRC.glob("*/limits.h"))


def of_cpp(room):
    """{"LARGEST_K": 16, ...} of csrc/<room>/limits.h: kLargestK = 16, ..."""
    text = (CSRC / room / "limits.h").read_text()
    found = re.findall(r"\bk([A-Z]\w*) = (\d+(?: << \d+)?)[,;]", text)
    assert len(found) == text.count(" = "), f"{room}: a constant in a form this test does not read"
    parts = {name: value.split(" << ") for name, value in found}
    return {
        re.sub(r"(?<!^)([A-Z])", r"_\1", name).upper(): int(value[0]) << int([0, *value[1:]][-1])
        for name, value in parts.items()
    }


def of_python(room):
    module = import_module(f"kdops.ops.{room}.limits")
    return {name: value for name, value in vars(module).items() if name.isupper()}


def test_rooms_are_found():
    assert {"rbf", "relation", "svd"} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_python_repeats_what_the_kernels_take(room):
    assert of_python(room) == of_cpp(room)
