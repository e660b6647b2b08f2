"""Matrices that fall apart but for tiny couplings: values and gradient of the top k, in float64.

Nearly diagonal, bidiagonal, block-diagonal matrices and nearly orthogonal columns have values far
apart and a harmless condition, but their shifted systems are singular to the last bit, couplings
vanish in squares, and rows trade places in eliminations.
"""

import pytest
import torch
from support.svd_inputs import NEARLY_SPLIT, nearly_split

import kdops
from kdops import batched_svd

COUPLINGS = [1e-1, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-15, 1e-20, 1e-30]
COUPLINGS += [1e-60, 1e-100, 1e-150, 1e-200]


pytestmark = pytest.mark.skipif(
    bool(kdops._library.missing), reason="the couplings trouble the compiled kernel's solves"
)


def split_matrices(m, n, dtype):
    """Every kind and coupling; values that are powers of two, evenly spaced, and random."""
    g, r = torch.Generator().manual_seed(0), min(m, n)
    places = torch.arange(r, dtype=torch.float64)
    random = 1 - (places + torch.rand(r, generator=g, dtype=torch.float64) / 2) / (1.5 * r)
    spectra = [2.0**-places, 1 - 0.7 * places / r, random]
    return torch.stack(
        [
            nearly_split(kind, values, coupling, m, n, g)
            for values in spectra
            for kind in NEARLY_SPLIT
            for coupling in COUPLINGS
        ]
    ).to(dtype)


def gradient(A, k, degenerate="mask"):
    """(S, gA) of a loss on S and on each v_i by itself."""
    g, n = torch.Generator().manual_seed(1), A.shape[-1]
    weights = torch.randn(k, n, n, generator=g, dtype=torch.float64).to(A)
    A = A.detach().requires_grad_()
    _, S, Vh = batched_svd(A, k, degenerate=degenerate)
    loss = S.sum() + torch.einsum("bki,kij,bkj->", Vh, weights, Vh)
    return S.detach().double(), torch.autograd.grad(loss, A)[0].double()


def check(A, k, degenerate):
    """Values and gradient to rounding, of A's type and of the yardstick's own, over the gap.

    The gap is the smallest between two of the first k + 1 squares.
    """
    S, found = gradient(A, k, degenerate)
    with kdops.backend("reference"):
        exact, expected = gradient(A.double(), k)
    eps, r = torch.finfo(A.dtype).eps, min(A.shape[-2:])
    largest = exact[:, :1]
    assert ((S - exact).abs() <= 4 * r * eps * largest).all()
    squares = torch.linalg.svdvals(A.double()) ** 2
    gap = (squares[:, :-1] - squares[:, 1:])[:, :k].amin(-1) / squares[:, 0]
    error = torch.linalg.matrix_norm(found - expected) / torch.linalg.matrix_norm(expected)
    bound = ((30 + 4 * r) * eps + 200 * torch.finfo(torch.float64).eps) / gap
    worst = (error / bound).argmax()
    assert error[worst] <= bound[worst], (worst.item(), error[worst].item(), gap[worst].item())


@pytest.mark.parametrize("degenerate", ["mask", "lorentz"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("shape", "k"), [((5, 5), 1), ((9, 9), 3), ((40, 20), 4)], ids=str)
def test_nearly_split(shape, k, dtype, degenerate):
    check(split_matrices(*shape, dtype), k, degenerate)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("k", range(1, 17))
def test_nearly_split_everywhere(k, dtype):
    for shape in ((2 * k + 1, 2 * k + 1), (3 * k + 9, 2 * k + 3), (2 * k + 2, 3 * k + 7)):
        check(split_matrices(*shape, dtype), k, "mask")
