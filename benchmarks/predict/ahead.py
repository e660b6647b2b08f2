"""What the compilers make of the Triton kernels, without a GPU.

    python -m benchmarks.predict.ahead [-k WORDS] [--arch 90]

Of every kernel, for an H200 unless told otherwise: registers and spilled bytes of a thread, shared
memory and resident blocks of a multiprocessor, instructions of the machine code, and what its loop
with the most multiply-adds issues: that share of the arithmetic's peak is the most that it reaches.
Needs triton alone. Nothing here has been measured on a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.predict.model import resident
from benchmarks.predict.triton_kernels import ARCHITECTURES, MODULES, NUMBERS, Kernel, Module

SMALLEST_SHARED = 64 << 10  # of a block, since sm_75
_LAUNCH = ("num_warps", "num_stages", "enable_fp_fusion")
_MULTIPLY_ADDS = ("FFMA", "DFMA", "FFMA2")
_MATRIX = ("DMMA", "HMMA", "HGMMA", "QGMMA")


@dataclass(frozen=True)
class Loop:
    """Instructions of a loop that holds no other, by their opcodes."""

    opcodes: tuple[str, ...]

    def share(self, opcodes: tuple[str, ...]) -> float:
        return sum(name in opcodes for name in self.opcodes) / max(len(self.opcodes), 1)


@dataclass(frozen=True)
class Compiled:
    kernel: Kernel
    number: str
    arch: int
    threads: int
    registers: int
    stack: int  # bytes of a thread in local memory
    shared: int
    ptx: str
    loops: tuple[Loop, ...]
    length: int  # instructions of the machine code

    def hottest(self) -> Loop:
        """The loop with the most multiply-adds; an empty one where there is none."""
        wanted = (*_MULTIPLY_ADDS, *_MATRIX)
        return max(
            self.loops, key=lambda loop: loop.share(wanted) * len(loop.opcodes), default=Loop(())
        )


def compile_ahead(module: Module, kernel: Kernel, number: str, arch: int) -> Compiled:
    """As the launchers of the module do."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from kdops._triton import tiling

    code = importlib.import_module(module.name)
    options = tiling({"fp32": torch.float32, "fp64": torch.float64}[number])
    options = dict(getattr(code, "OPTIONS", options)) | module.constants_of(number)
    options |= kernel.constants
    launch = {name: options.pop(name) for name in _LAUNCH if name in options}
    function = getattr(code, kernel.name)
    names = function.arg_names
    constants = {name: value for name, value in options.items() if name in names}
    if not {k for k in kernel.constants if k not in _LAUNCH} <= constants.keys():
        raise ValueError(f"{kernel.name} has no {kernel.constants.keys() - constants.keys()}")
    types = dict(f"{pointer}:{number}".split(":")[:2] for pointer in kernel.pointers.split())
    if not types.keys() <= set(names):
        raise ValueError(f"{kernel.name} has no {types.keys() - set(names)}")
    signature = {
        name: "constexpr" if name in constants else f"*{types[name]}" if name in types else "i32"
        for name in names
    }
    source = ASTSource(function, signature, constexprs=constants)
    built = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=launch)
    return _described(kernel, number, arch, built)


def _described(kernel: Kernel, number: str, arch: int, built: Any) -> Compiled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        usage, code = (_cuobjdump(option, file.name) for option in ("-res-usage", "-sass"))
    loops, length = loops_of(code)
    return Compiled(
        kernel,
        number,
        arch,
        threads=32 * built.metadata.num_warps,
        registers=int(re.findall(r"REG:(\d+)", usage)[0]),
        stack=int(re.findall(r"STACK:(\d+)", usage)[0]),
        shared=built.metadata.shared,
        ptx=built.asm["ptx"],
        loops=loops,
        length=length,
    )


def _cuobjdump(option: str, file: str) -> str:
    import triton

    command = [triton.knobs.nvidia.cuobjdump.path, option, file]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def loops_of(sass: str) -> tuple[tuple[Loop, ...], int]:
    """The innermost loops of disassembled machine code, and how many instructions it has."""
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)([^;]*);", sass)
    lines = [(int(at, 16), name.partition(".")[0], rest) for at, name, rest in found]
    spans = []
    for at, name, rest in lines:
        target = re.search(r"0x([0-9a-f]+)", rest) if name == "BRA" else None
        if target and int(target[1], 16) < at:  # the last instruction of all jumps to itself
            spans.append((int(target[1], 16), at))
    inner = [s for s in spans if not any(s != o and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    loops = [Loop(tuple(n for at, n, _ in lines if first <= at <= last)) for first, last in inner]
    return tuple(loops), sum(name != "NOP" for _, name, _ in lines)


def check(module_name: str, number: str) -> None:
    """AssertionError where a kernel asks for more than it may, on any architecture."""
    (module,) = (m for m in MODULES if m.name == module_name)
    for kernel in module.kernels:
        for arch in ARCHITECTURES:
            found = compile_ahead(module, kernel, number, arch)
            place = (kernel.name, arch)
            assert found.length > 10, place
            assert found.shared <= SMALLEST_SHARED, (place, found.shared)
            assert found.stack <= module.spills.get((number, *place), 0), (place, found.stack)
            assert "tf32" not in found.ptx, place
            assert not re.search(r"\b(atom|red)\.", found.ptx), place
            if not kernel.constants.get("enable_fp_fusion", True):
                assert "fma." not in found.ptx, place


def line(found: Compiled) -> str:
    loop = found.hottest()
    blocks = resident(
        {"threads": found.threads, "registers": found.registers, "shared": found.shared}
    )
    issued = f"{len(loop.opcodes):>5}"
    for opcodes in (_MULTIPLY_ADDS, _MATRIX, ("LDS", "LDSM"), ("LDG", "LDGSTS"), ("BAR",)):
        issued += f" {loop.share(opcodes):>6.0%}"
    constants = ", ".join(f"{k} {v}" for k, v in found.kernel.constants.items() if k not in _LAUNCH)
    return (
        f"{found.kernel.name:<20} {found.number} {found.threads:>7} {found.registers:>5} "
        f"{found.stack:>7} {found.shared:>6} {blocks:>6} {found.length:>6} {issued}  {constants}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predict.ahead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-k", default="", metavar="WORDS", help="kernels that hold all these words")
    parser.add_argument("--arch", type=int, default=90, choices=ARCHITECTURES)
    arguments = parser.parse_args()
    if importlib.util.find_spec("triton") is None:
        print("Triton is not installed: pip install triton", file=sys.stderr)
        return 1
    print(f"compiled for sm_{arguments.arch}; of the loop with the most multiply-adds: its length,")
    print("and of them multiply-adds, matrix instructions, shared and global loads, barriers")
    print(
        f"{'kernel':<20} {'of':<4} {'threads':>7} {'regs':>5} {'spilled':>7} {'shared':>6} "
        f"{'blocks':>6} {'length':>6} {'loop':>5} {'fma':>6} {'mma':>6} {'lds':>6} {'ldg':>6} "
        f"{'bar':>6}"
    )
    shown = None
    for module in MODULES:
        for kernel in module.kernels:
            for number in NUMBERS:
                words = f"{module.name} {kernel.name} {number}"
                if not all(word in words for word in arguments.k.split()):
                    continue
                if shown is not module:
                    print(module.name)
                shown = module
                print(line(compile_ahead(module, kernel, number, arguments.arch)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
