"""The gradient at equal values on a GPU, whose kernels split them like a CPU's."""

import pytest
import torch
from support.svd_clusters import symmetric, turn_of_projector, two_values, worst

from kdops import batched_svd

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
    (m, n), g = shape, torch.Generator().manual_seed(0)
    A, V = two_values(count, m, n, equal, g)
    W = symmetric(count, n, g)
    X = A.to(DEVICE, dtype).requires_grad_()
    of_cluster = batched_svd(X, k).Vh.mT[..., :equal]
    (W.to(X) * (of_cluster @ of_cluster.mT)).sum().backward()
    expected = 2 * A @ turn_of_projector(V, W, equal, gap=0.75)  # of A^T A
    assert worst(X.grad, expected, W) <= 120 * torch.finfo(dtype).eps
