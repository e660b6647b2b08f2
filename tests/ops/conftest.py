"""Fixtures of the rooms."""

import pytest

import kdops


@pytest.fixture(params=["native", "reference"])
def backend(request):
    """A test that takes it runs on both backends of a CPU, forced."""
    with kdops.backend(request.param):
        yield request.param


@pytest.fixture
def native_on_a_gpu(request):
    """The kernels of this install on a GPU, forced; of a module with a DEVICE."""
    if request.module.DEVICE == "cuda" and not kdops._library.has_cuda_kernels():
        pytest.skip("this install was compiled without CUDA kernels")
    with kdops.backend("native"):
        yield
