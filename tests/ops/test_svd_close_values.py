"""The gradient where values are equal or nearly so: what counts as equal, and what each side gets.

Rounding splits equal values, by up to 5 sqrt(r) eps s_1. What it splits must stay together: a
projector's numerator is rounding there and would be divided by rounding. What is further apart must
not be cut: a loss that joins U and V has its gradient there from a pair's numerator and divisor.
"""

import pytest
import torch
from support.svd_clusters import (
    error_of_projector,
    orthonormal,
    symmetric,
    turn_of_projector,
    worst,
)
from support.svd_inputs import with_values

from kdops import batched_eigh, batched_svd

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "count", "equal", "k"),
    [
        ((3, 3), 1000, 2, None),
        ((4, 4), 1000, 2, None),
        ((8, 8), 1000, 4, None),
        ((40, 16), 200, 8, None),
        ((9, 8), 500, 3, 3),
        ((64, 64), 10, 32, None),
        ((140, 130), 3, 8, 8),
        ((140, 130), 3, 65, None),
    ],
    ids=str,
)
def test_projector_on_equal_values(shape, count, equal, k, dtype):
    """Of 1,000 matrices 3x3, 70 had a gradient of the size of W where there is none: rounding had
    split the two values by more than tau, which was r eps."""
    for wide in (False, True):
        assert error_of_projector(shape, count, equal, k, dtype, wide=wide) <= 120


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "count"), [(3, 1000), (4, 1000), (8, 1000), (40, 20)])
def test_projector_on_equal_eigenvalues(n, count, dtype):
    g, equal = torch.Generator().manual_seed(0), n // 2
    V = orthonormal(count, n, n, g)
    values = torch.where(torch.arange(n) < equal, 0.5, 1.0).double()
    W = symmetric(count, n, g)
    X = ((V * values) @ V.mT).to(dtype).requires_grad_()
    Q = batched_eigh(X).eigenvectors[..., :equal]
    (W.to(X) * (Q @ Q.mT)).sum().backward()
    assert (
        worst(X.grad, turn_of_projector(V, W, equal, gap=-0.5), W) <= 120 * torch.finfo(dtype).eps
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(300, 256), (256, 300)], ids=str)
@pytest.mark.parametrize("k", [None, 8])
def test_pairs_that_are_close_and_not_equal(shape, k, dtype):
    """<W, U S Vh> has the gradient W (its part on the k triples), also of what the pairs make
    together: 100 of their own values' errors apart, and below the r eps that cut it."""
    g, r = torch.Generator().manual_seed(0), min(shape)
    eps = torch.finfo(dtype).eps
    gap = 0.8 * r * eps
    values = torch.linspace(2, 1, r // 2, dtype=torch.float64).repeat_interleave(2) / 2
    values[1::2] -= gap
    exact = with_values(values, *shape, g)
    W = torch.randn(shape, generator=g, dtype=torch.float64)
    X = exact.to(dtype).requires_grad_()
    U, S, Vh = batched_svd(X, k)
    (W.to(X) * ((U * S.unsqueeze(-2)) @ Vh)).sum().backward()
    with torch.no_grad():
        U, S, Vh = torch.linalg.svd(exact, full_matrices=False)
        found, true = (U.mT @ G.double() @ Vh.mT for G in (X.grad, W))
    first = torch.arange(0, k or r, 2)
    joint = [M[first, first + 1] + M[first + 1, first] for M in (found, true)]
    assert torch.linalg.norm(joint[0] - joint[1]) <= 0.2 * torch.linalg.norm(joint[1])
