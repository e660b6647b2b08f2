"""How the tests of Triton kernels run them: each in a process of its own, since the interpreter is
chosen when triton is imported."""

from new_process import run_python


def interpret(code):
    """Runs code with the kernels in Triton's interpreter, on CPU tensors."""
    run_python(code, TRITON_INTERPRET="1")


def compile_ahead(module, number, kernels, **sizes):
    """Compiles kernels of a module for sm_80, 90 and 100, without a GPU, as its launchers do.

    number: "fp32" | "fp64", what pointers point to unless they say "name:type". kernels: (name,
    names of its pointers, constants and launch options of its own). sizes: constants of all kernels
    that have them.
    """
    problem = f"MODULE, NUMBER, KERNELS, SIZES = {module!r}, {number!r}, {kernels!r}, {sizes!r}"
    run_python(problem + _COMPILE, TRITON_INTERPRET="0")


_COMPILE = r"""
import re
from importlib import import_module

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kdops._triton import tiling

module = import_module(MODULE)
options = tiling({"fp32": torch.float32, "fp64": torch.float64}[NUMBER])
options = dict(getattr(module, "OPTIONS", options))
LAUNCH = ("num_warps", "num_stages", "enable_fp_fusion")
common = {k: options.pop(k) for k in LAUNCH if k in options}

for name, pointers, own in KERNELS:
    launch = common | {k: v for k, v in own.items() if k in LAUNCH}
    own = {k: v for k, v in own.items() if k not in LAUNCH}
    kernel = getattr(module, name)
    names = kernel.arg_names
    constants = {n: v for n, v in (options | SIZES | own).items() if n in names}
    assert own.keys() <= constants.keys(), (name, own)
    types = dict((pointer + ":" + NUMBER).split(":")[:2] for pointer in pointers.split())
    assert set(types) <= set(names), (name, pointers)
    signature = {
        n: "constexpr" if n in constants else ("*" + types[n] if n in types else "i32")
        for n in names
    }
    for arch in (80, 90, 100):
        source = ASTSource(kernel, signature, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=launch)
        assert len(compiled.asm["cubin"]) > 1000, (name, arch)
        assert compiled.metadata.shared <= 99 << 10, (name, arch, compiled.metadata.shared)
        assert "tf32" not in compiled.asm["ptx"], (name, arch)
        assert not re.search(r"\b(atom|red)\.", compiled.asm["ptx"]), (name, arch)
        if not launch.get("enable_fp_fusion", True):
            assert "fma." not in compiled.asm["ptx"], (name, arch)
"""
