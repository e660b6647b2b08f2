"""The gradient of vectors whose values are far below the largest.

Beyond min(m, n) = 128 they are found after the larger triples have been taken away. What counts as
equal is still tau s_1, which is not small beside these values: it must not take part of what is
farther away, and must take what is nearer.
"""

import pytest
import torch
from support.svd_clusters import LAST_AND_REST, error_of_far_vector

DTYPES = [torch.float32, torch.float64]
SHAPES = [(150, 140), pytest.param((310, 300), marks=pytest.mark.slow), (150, 120), (40, 24)]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("last", "rest"), LAST_AND_REST)
def test_vector_of_a_value_far_below_the_largest(last, rest, shape, dtype, wide):
    assert error_of_far_vector(shape, last, rest, dtype, wide=wide) <= 0.03


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("last", "rest"), LAST_AND_REST)
def test_lorentz(last, rest, shape, dtype):
    """Values clear of the k-th by 2 tau or more may get the plain quotient."""
    assert error_of_far_vector(shape, last, rest, dtype, policy="lorentz") <= 0.2
