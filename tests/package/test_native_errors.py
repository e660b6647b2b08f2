"""What the compiled library says when its environment is wrong or the machine is exhausted."""

import shutil
import subprocess

import pytest
from support.new_process import in_new_process


def test_an_unknown_instruction_set_is_refused():
    refused = in_new_process("import torch, kdops", KDOPS_ISA="avx-2")
    assert refused.returncode != 0
    assert "KDOPS_ISA: expected one of baseline, avx2, avx512, got 'avx-2'" in refused.stderr


# Scratch asks for a multiple of its element and 63 bytes for the alignment
EXHAUSTED = r"""
#include <dlfcn.h>
#include <stddef.h>
static int armed = 0;
extern "C" void arm(int on) { armed = on; }
extern "C" void* malloc(size_t size) {
  static void* (*real)(size_t) = 0;
  if (!real) real = (void* (*)(size_t))dlsym(RTLD_NEXT, "malloc");
  return armed && size > 512 && size % 4 == 3 ? 0 : real(size);
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for a malloc that fails")
@pytest.mark.parametrize("batch", [1, 4096], ids=["one range", "many ranges"])
def test_out_of_memory_in_a_parallel_loop_says_so(tmp_path, batch):
    library = tmp_path / "exhausted.so"
    command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=EXHAUSTED, text=True, check=True)
    code = (
        "import ctypes, torch, kdops; torch.set_num_threads(2);"
        f"x = torch.randn({batch}, 24, 24); kdops.batched_svd(x);"
        f"arm = ctypes.CDLL('{library}').arm; arm(1)\n"
        "try: kdops.batched_svd(x)\n"
        "except RuntimeError as error: arm(0); print('said:', error)\n"
        "arm(0); print(kdops.batched_svd(x).S.isfinite().all().item())"
    )
    run = in_new_process(code, LD_PRELOAD=str(library), OMP_NUM_THREADS="2")
    assert run.returncode == 0, run.stderr
    assert "out of memory: a kernel could not get its work memory" in run.stdout
    assert run.stdout.endswith("True\n")
