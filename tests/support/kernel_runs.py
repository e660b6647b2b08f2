"""How the tests of Triton kernels run them: each in a process of its own, since the interpreter is
chosen when triton is imported."""

from support.new_process import run_python


def interpret(code):
    """Runs code with the kernels in Triton's interpreter, on CPU tensors."""
    run_python(code, TRITON_INTERPRET="1")


def compile_ahead(module, number, kernels, spills=(), **sizes):
    """Compiles kernels of a module for sm_75 to sm_120, without a GPU, as its launchers do.

    Shared memory stays within that of the smallest GPU, no register is spilled.

    number: "fp32" | "fp64", what pointers point to unless they say "name:type". kernels: (name,
    names of its pointers, constants and launch options of its own). sizes: constants of all kernels
    that have them. spills: {(kernel, arch): bytes a thread} that ptxas spills all the same.
    """
    problem = f"MODULE, NUMBER, KERNELS, SIZES = {module!r}, {number!r}, {kernels!r}, {sizes!r}"
    problem += f"\nSPILLS = {dict(spills)!r}"
    run_python(problem + _COMPILE, TRITON_INTERPRET="0")


_COMPILE = r"""
import re
import subprocess
import tempfile
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


def stack(cubin):  # bytes a thread, by the machine code's own description
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (found,) = re.findall(r"STACK:(\d+)", text)
    return int(found)


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
    for arch in (75, 80, 90, 100, 120):
        source = ASTSource(kernel, signature, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=launch)
        assert len(compiled.asm["cubin"]) > 1000, (name, arch)
        assert compiled.metadata.shared <= 64 << 10, (name, arch, compiled.metadata.shared)
        spilled, allowed = stack(compiled.asm["cubin"]), SPILLS.get((name, arch), 0)
        assert spilled <= allowed, (name, arch, spilled)
        assert "tf32" not in compiled.asm["ptx"], (name, arch)
        assert not re.search(r"\b(atom|red)\.", compiled.asm["ptx"]), (name, arch)
        if not launch.get("enable_fp_fusion", True):
            assert "fma." not in compiled.asm["ptx"], (name, arch)
"""
