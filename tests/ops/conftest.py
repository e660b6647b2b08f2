"""Fixtures of the rooms."""

import pytest

import kdops


@pytest.fixture(params=["native", "reference"])
def backend(request):
    """A test that takes it runs on both backends of a CPU, forced."""
    with kdops.backend(request.param):
        yield request.param
