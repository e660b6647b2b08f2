"""pytest plugin: `python -m pytest -p tests.emulator.plugin tests/test_contract.py --device cuda`.

Builds and loads the emulated device, skips by name what it cannot do, and fails a test during which
the device refused a launch or objected to what a kernel did.
"""

from __future__ import annotations

import os
import re

import pytest

# Workers of xdist import the tests before plugins named by -p, but those of the environment first.
os.environ["PYTEST_PLUGINS"] = __name__

from tests.emulator import library, session

missing_kernels, runtime = session.missing_kernels, session.runtime

GRAPHS = "the emulated device has no CUDA graphs"
TRITON = "on a GPU this op is a Triton kernel, which needs Triton's driver library"
SKIPPED = {
    r"cuda_graph": GRAPHS,
    r"test_(value|opcheck)\[.*(attention_|pairwise_|rbf_affinity|similarity_loss)": TRITON,
}


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
