"""pytest plugin: `python -m pytest -p tests.emulator.plugin tests/test_contract.py --device cuda`.

Builds and loads the emulated device, skips by name what it cannot do, and fails a test during which
the device refused a launch or objected to what a kernel did.
"""

from __future__ import annotations

import os
import re

import pytest

from tests.emulator import library

# Workers of xdist import the tests before plugins named by -p, but those of the environment first.
os.environ["PYTEST_PLUGINS"] = __name__
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
ONLY_CPU = {"svd_backward"}  # on a GPU its formula runs as operators of torch
BEFORE = {op: cuda_kernels(op) for op in OURS}  # of a binary that was built with CUDA
library.load_kernels()

from tests.emulator import torch_cuda  # noqa: E402

runtime = library.runtime()
torch_cuda.answer(runtime)

from kdops import _backends, _library  # noqa: E402

_library.has_cuda_kernels = lambda: True
_backends.triton_obstacle = lambda *_: "the emulated device runs no Triton kernels"

GRAPHS = "the emulated device has no CUDA graphs"
TRITON = "on a GPU this op is a Triton kernel, which needs Triton's driver library"
SKIPPED = {
    r"cuda_graph": GRAPHS,
    r"test_(value|opcheck)\[.*(attention_|pairwise_|rbf_affinity|similarity_loss)": TRITON,
}


def missing_kernels() -> list[str]:
    """Ops that csrc defines and that would not run here on what csrc holds for CUDA."""
    defined = [schema.partition("(")[0] for schema in _library._schemas(library.ROOT / "csrc")]
    nothing = [op for op in defined if op not in ONLY_CPU and cuda_kernels(op) == 0]
    return sorted({*nothing, *(op for op in OURS if cuda_kernels(op) <= BEFORE[op])})


def pytest_configure(config: pytest.Config) -> None:
    if missing := missing_kernels():
        pytest.exit(f"emulated device: no kernel for {', '.join(missing)}", returncode=4)


def pytest_report_header() -> str:
    return f"emulated CUDA device: {library.FOLDER}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for pattern, reason in SKIPPED.items():
            if re.search(pattern, item.name):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """A test may expect an exception; that the device objected is a failure all the same."""
    runtime.emulator_objections()
    result = yield
    if objections := runtime.emulator_objections().decode():
        pytest.fail(f"the emulated device objected:\n{objections}", pytrace=False)
    return result


def pytest_terminal_summary(terminalreporter) -> None:
    launches, millions = runtime.emulator_launches(), runtime.emulator_warp_instructions() / 1e6
    if launches:
        terminalreporter.write_line(
            f"emulated device: {launches} launches, {millions:.0f} million warp instructions"
        )
