"""The emulated device in this process: import this before torch. What it holds is README.md's.

import tests.emulator.session   # then torch, kdops and whatever runs on "cuda"
"""

from __future__ import annotations

import re

from tests.emulator import library

library.build()
library.load_device()

import torch  # noqa: E402

library.load_schemas()


def cuda_kernels(op: str) -> int:
    """How many libraries have given the op a CUDA kernel; the last one's serves."""
    dump = torch._C._dispatch_dump(f"kdops::{op}")
    return sum(line.startswith("CUDA") for line in dump.splitlines())


OURS = sorted(
    name
    for path in library.ROOT.glob("csrc/**/*_cuda.cu")
    for name in re.findall(r'm\.impl\("(\w+)"', path.read_text())
)
# on a GPU its formula runs as operators of torch
ONLY_CPU = {"svd_backward"}
BEFORE = {op: cuda_kernels(op) for op in OURS}  # of a binary that was built with CUDA
library.load_kernels()

from tests.emulator import torch_cuda  # noqa: E402

runtime = library.runtime()
torch_cuda.answer(runtime)

from kdops import _backends, _library  # noqa: E402

_library.has_cuda_kernels = lambda: True
_library.unserved_gpu = lambda: None
_backends.triton_obstacle = lambda *_: "the emulated device runs no Triton kernels"


def missing_kernels() -> list[str]:
    """Ops that csrc defines and that would not run here on what csrc holds for CUDA."""
    defined = [schema.partition("(")[0] for schema in _library._schemas(library.ROOT / "csrc")]
    nothing = [op for op in defined if op not in ONLY_CPU and cuda_kernels(op) == 0]
    return sorted({*nothing, *(op for op in OURS if cuda_kernels(op) <= BEFORE[op])})
