"""pytest plugin: `python -m pytest -p tests.emulator.plugin tests/test_contract.py --device cuda`.

Builds and loads the emulated device, skips by name what it cannot do, and fails a test during which
the device refused a launch or objected to what a kernel did.
"""

from __future__ import annotations

import os

import pytest

# Workers of xdist import the tests before plugins named by -p, but those of the environment first.
os.environ["PYTEST_PLUGINS"] = __name__

from tests.emulator import library, session

missing_kernels, runtime = session.missing_kernels, session.runtime

GRAPHS = "the emulated device has no CUDA graphs"
TRITON = "on a GPU this op is a Triton kernel, which needs Triton's driver library"
NEEDS_A_KERNEL = ("test_value", "test_opcheck")  # the others pass on the reference, too


def pytest_configure(config: pytest.Config) -> None:
    if missing := missing_kernels():
        pytest.exit(f"emulated device: no kernel for {', '.join(missing)}", returncode=4)


def pytest_report_header() -> str:
    return f"emulated CUDA device: {library.FOLDER}"


def has_triton(op: str) -> bool:
    ladder = session._backends._ladders.get(op)  # none: the gradient of another op
    return ladder is not None and "triton" in ladder.predicates


def cannot(item: pytest.Item) -> str | None:
    """Why the emulated device cannot run the test, if it cannot."""
    if "cuda_graph" in item.name:
        return GRAPHS
    spec = item.callspec.params.get("spec") if hasattr(item, "callspec") else None
    if spec is not None and item.originalname in NEEDS_A_KERNEL:
        return TRITON if any(has_triton(op) for op, _ in spec.op_calls) else None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if reason := cannot(item):
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
