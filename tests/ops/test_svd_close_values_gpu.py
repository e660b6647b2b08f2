"""The gradient at equal values on a GPU, whose kernels split them like a CPU's."""

import pytest
import torch
from support.svd_clusters import error_of_projector

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("native_on_a_gpu")]

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "count", "equal", "k"),
    [
        ((3, 3), 300, 2, None),
        ((8, 8), 300, 4, None),
        ((9, 8), 100, 3, 3),
        ((40, 16), 40, 8, None),
        ((48, 40), 8, 20, None),
        ((140, 130), 2, 8, 8),
    ],
    ids=str,
)
def test_projector_on_equal_values(shape, count, equal, k, dtype):
    assert error_of_projector(shape, count, equal, k, dtype, DEVICE) <= 120
