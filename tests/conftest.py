"""Options, seeds and markers shared by all tests."""

import pytest
import torch

from kdops.testing import poisoned_empty


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="cpu or cuda: where the contract runs")


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


def pytest_collection_modifyitems(config, items):
    if torch.cuda.is_available():
        return
    reason = pytest.mark.skip(reason="needs a CUDA device, and torch sees none here")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(reason)
