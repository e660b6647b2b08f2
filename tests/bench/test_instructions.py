"""benchmarks.instructions: what is counted, how callgrind's file is read, what a budget refuses."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import budgets
from benchmarks.instructions import __main__ as instructions
from benchmarks.instructions import callgrind
from benchmarks.instructions.cases import CASES
from kdops import _library

DUMP = """version: 1
events: Ir

ob=(1) /somewhere/kdops/_C.abi3.so
fn=(1) kernel
12 100
+3 20
cob=(2) /lib/libm.so.6
cfn=(2) exp
calls=3 0
* 5000
* 7
ob=(2)
fn=(2)
40 5000
ob=(3) /usr/bin/python3
fn=(3) eval
1 30
cob=(1)
cfn=(1)
calls=1 0
1 5127

ob=(1)
fn=(1)
-2 8
totals: 5165
"""


def test_costs_belong_to_their_own_library():
    assert callgrind.read(DUMP) == {"kdops": 135, "others": 5030}


class Called(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name())
        return function(*args, **kwargs or {})


@pytest.mark.skipif(_library.missing is not None, reason="this install has no compiled kernels")
def test_every_op_of_the_library_is_counted():
    with Called() as called:
        for case in CASES.values():
            case.run(case.inputs(1))
    ops = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("kdops::")}
    assert {name for name in ops if "." not in name} - called.names == set()


def test_every_case_has_a_budget_and_no_other_is_committed():
    assert list(budgets.load(instructions.FILE)) == list(CASES)


def test_six_percent_more_instructions_fail():
    row = next(iter(budgets.load(instructions.FILE).values()))
    for factor, complaints in ((1.04, 0), (1.06, 1), (0.5, 0)):
        found = {"case": {**row, "kdops": row["kdops"] * factor}}
        assert len(budgets.excesses(found, {"case": row}, instructions.MARGINS)) == complaints
