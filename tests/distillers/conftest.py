"""Distillers are tried on tiny tensors."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread):
    pass
