"""A room's C++ calls another room's op through the dispatcher, which does not count arguments."""

import re
from pathlib import Path

import pytest
import torch

import kdops  # noqa: F401  (registers the schemas)

CSRC = Path(__file__).parents[2] / "csrc"
CALL = re.compile(
    r"std::array<StableIValue, (?P<size>\d+)> stack(?:(?!std::array<StableIValue).)*?"
    r'torch_call_dispatcher\(\s*"kdops::(?P<op>\w+)", "(?P<overload>\w*)", stack\.data\(\)',
    re.DOTALL,
)


def calls():
    for file in sorted(CSRC.rglob("*.c*")):
        text = file.read_text()
        found = list(CALL.finditer(text))
        # a call in a form that the pattern does not know would go unchecked
        assert len(found) == text.count("torch_call_dispatcher("), file
        for call in found:
            yield pytest.param(call["op"], int(call["size"]), id=f"{file.stem}-{call['op']}")


@pytest.mark.parametrize(("op", "size"), calls())
def test_stack_is_as_long_as_the_schema(op, size):
    schema = getattr(torch.ops.kdops, op).default._schema
    assert size == max(len(schema.arguments), len(schema.returns)), schema
