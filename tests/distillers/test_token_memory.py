"""Tokens are read where they lie: a transposed copy of a level would show in the peak."""

import sys

import pytest
import torch
from support.new_process import peak_growth_mb

from kdops._library import missing
from kdops.distillers._base import rows
from kdops.features import tokens_to_maps

pytestmark = [
    pytest.mark.skipif(missing is not None, reason=str(missing)),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status"),
]

# One level, 32 x 196 x 384 in float32, is 9.2 MB; MB that a step on two levels may take.
SETUP = """
import kdops.distillers as kd
make = lambda *size: [torch.randn(size) for _ in range(2)]
s, t, m = [x.requires_grad_() for x in make({0})], make({0}), kd.{1}(layout="tokens")
"""
BACKWARD = "m(s, t).backward()"
CASES = {
    "KDSVD": (BACKWARD, 33),  # both gradients, and one matrix of scratch per sample in flight
    "AttentionTransfer": (BACKWARD, 22),  # both gradients
    "FSP": (BACKWARD, 23),
    "NST": (BACKWARD, 23),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_no_transposed_copy(name):
    step, limit_mb = CASES[name]
    small, large = (SETUP.format(size, name) for size in ("2, 16, 8", "32, 196, 384"))
    assert peak_growth_mb(small + step, large, step) < limit_mb


def test_vectors_of_a_batch_are_views():
    """What RKD and SP compare: the tokens of a sample in a row, in their own order."""
    x = torch.randn(4, 9, 8)
    assert rows(tokens_to_maps(x)).data_ptr() == x.data_ptr()
    assert torch.equal(rows(tokens_to_maps(x, prefix=1)), x[:, 1:].flatten(1))
