"""Options, seeds and markers shared by all tests."""

import os
import sys
from pathlib import Path

import pytest
import torch

# benchmarks and tests.emulator, for a plain `pytest`; last: an installed kdops stays in front
sys.path.append(str(Path(__file__).parents[1]))

from support import processes

from kdops.testing import poisoned_empty


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="cpu or cuda: where the contract runs")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """A plain `pytest`, without paths and -m, leaves out what is slow, and runs on all cores where
    pytest-xdist is there (-n 0: on one)."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS or config.option.markexpr:
        return
    config.option.markexpr = "not slow"
    is_worker = hasattr(config, "workerinput")  # which gets no options, and must not start workers
    alone = is_worker or config.option.collectonly or config.option.usepdb
    if not alone and getattr(config.option, "numprocesses", "absent") is None:
        config.option.numprocesses = min(os.cpu_count() or 1, 8)


def pytest_configure(config):
    """A worker has one thread: two workers of two would wait for each other. What threads could
    change is asked with torch.set_num_threads by the tests that are about it."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def device(request):
    name = request.config.getoption("--device")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.exit("--device cuda: torch sees no CUDA device", returncode=4)
    return name


@pytest.fixture(autouse=True)
def seed_and_poison():
    """The same random numbers in every run; memory that nobody wrote is NaN."""
    torch.manual_seed(0)
    with poisoned_empty():
        yield


@pytest.fixture
def group_of_one(tmp_path):
    with processes.group_of_one(tmp_path):
        yield


@pytest.fixture(scope="module")
def one_thread():
    """For tiny tensors: one thread is faster than the hand-over between two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(config, items):
    if torch.cuda.is_available():
        return
    reason = pytest.mark.skip(reason="needs a CUDA device, and torch sees none here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(reason)
