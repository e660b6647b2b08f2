"""How the tests of Triton kernels run them: each in a process of its own, since the interpreter is
chosen when triton is imported."""

from support.new_process import run_python


def interpret(code):
    """Runs code with the kernels in Triton's interpreter, on CPU tensors."""
    run_python(code, TRITON_INTERPRET="1")
