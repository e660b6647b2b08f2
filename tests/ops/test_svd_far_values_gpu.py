"""The gradient of vectors whose values are far below the largest on a GPU.

Beyond min(m, n) = 128 they are found after the larger triples have been taken away. What counts as
equal is still tau s_1, which is not small beside these values: it must not take part of what is
farther away, and must take what is nearer.
"""

import pytest
import torch
from support.svd_clusters import LAST_AND_REST, error_of_far_vector

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("native_on_a_gpu")]

SHAPES = [
    ((150, 140), torch.float32, LAST_AND_REST),
    ((310, 300), torch.float32, LAST_AND_REST[2:4]),
    ((150, 140), torch.float64, LAST_AND_REST[2:4]),
    ((150, 120), torch.float32, LAST_AND_REST[2:4]),
    ((40, 24), torch.float64, LAST_AND_REST[2:4]),
]
CASES = [(shape, dtype, *one) for shape, dtype, several in SHAPES for one in several]


@pytest.mark.parametrize("policy", ["mask", "lorentz"])
@pytest.mark.parametrize(("shape", "dtype", "last", "rest"), CASES, ids=str)
def test_vector_of_a_value_far_below_the_largest(shape, dtype, last, rest, policy):
    """A soft edge of tau had taken away a quarter of the gradient at three times tau."""
    assert error_of_far_vector(shape, last, rest, dtype, DEVICE, policy) <= 0.03
