"""Every Triton kernel compiles for sm_75 to sm_120, within what the smallest GPU has."""

import pytest
from support.new_process import run_python

from benchmarks.predict.triton_kernels import MODULES, NUMBERS

pytest.importorskip("triton")


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("module", [module.name for module in MODULES])
def test_compiles_for_sm_75_to_120(module, number):
    """In a process of its own: the interpreter is chosen when triton is imported."""
    code = f"from benchmarks.predict.ahead import check; check({module!r}, {number!r})"
    run_python(code, TRITON_INTERPRET="0")


def test_a_kernel_that_asks_for_too_much_is_refused():
    code = """
        from dataclasses import replace
        from benchmarks.predict import ahead, triton_kernels

        module = next(m for m in ahead.MODULES if m.spills)
        number = next(iter(module.spills))[0]
        ahead.MODULES = (replace(module, spills={}),)
        try:
            ahead.check(module.name, number)
        except AssertionError as error:
            print("refused", error)
    """
    assert "refused" in run_python(code, TRITON_INTERPRET="0")


def test_loops_of_machine_code():
    """The innermost ones, by their opcodes; the jump to itself at the end is none."""
    from benchmarks.predict.ahead import loops_of

    sass = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   IADD3 R2, R2, 0x1, RZ ;
        /*0020*/                   FFMA R3, R3, R4, R5 ;
        /*0030*/              @!P0 BRA 0x20 ;
        /*0040*/               @P1 BRA 0x10 ;
        /*0050*/                   EXIT ;
        /*0060*/                   BRA 0x60;
        /*0070*/                   NOP ;
    """
    loops, length = loops_of(sass)
    assert [loop.opcodes for loop in loops] == [("FFMA", "BRA")]
    assert length == 7
