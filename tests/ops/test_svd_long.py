"""Sides so long that a plain sum in single precision would stand still or lose digits."""

import pytest
import torch

import kdops
from kdops import batched_svd, batched_svdvals

EPS = torch.finfo(torch.float32).eps


@pytest.fixture(autouse=True)
def native():
    with kdops.backend("native"):
        yield


def one_large_row(columns):
    """2^18 rows of +-1 and one of 4096, whose square is 2^24: a sum that holds it takes no ones.

    Their number is 1.6 % of the whole. A block of 256 that holds it may lose its own: 1e-5.
    """
    A = torch.ones(2**18, columns)
    A[:, 1::2] = -1
    A[100] *= 4096
    return A


@pytest.mark.parametrize("wide", [False, True], ids=["tall", "wide"])
@pytest.mark.parametrize("columns", [1, 2, 5])
def test_small_entries_beside_a_large_one(columns, wide):
    A = one_large_row(columns)
    expected = A.double().square().sum().sqrt()  # of rank one
    A = A.T.contiguous() if wide else A
    U, S, Vh = batched_svd(A)
    for value in (batched_svdvals(A)[0], S[0]):
        assert abs(value - expected) <= 1e-5 * expected
    for Q in (U, Vh.mT):
        eye = torch.eye(Q.shape[1], dtype=torch.float64)
        assert (Q.double().mT @ Q.double() - eye).abs().max() <= 2e-5  # twice that of a value


@pytest.mark.parametrize("wide", [False, True], ids=["tall", "wide"])
def test_full_rank(wide):
    """The Gram route: no rank to be found, and values to a few eps."""
    g = torch.Generator().manual_seed(0)
    A = torch.rand(2**20, 3, generator=g)
    expected = torch.linalg.eigvalsh(A.double().T @ A.double()).sqrt().flip(0)
    S = batched_svdvals(A.T.contiguous() if wide else A)
    assert ((S - expected).abs() <= 4 * EPS * expected[0]).all()


@pytest.mark.parametrize("wide", [False, True], ids=["tall", "wide"])
@pytest.mark.parametrize("columns", [3, 5, 40, 130])
def test_topk_of_small_entries_beside_a_large_one(columns, wide):
    g = torch.Generator().manual_seed(0)
    A = one_large_row(columns) + 1e-3 * torch.rand(2**18, columns, generator=g)
    exact = torch.linalg.eigvalsh(A.double().T @ A.double())[-1].sqrt()
    U, S, Vh = batched_svd(A.T.contiguous() if wide else A, k=1)
    assert abs(S[0] - exact) <= 2e-5 * exact
    for v in (U[:, 0], Vh[0]):
        assert abs(v.double().norm() - 1) <= 4e-5


def test_topk_gradient_of_a_long_side():
    """The sum of 2^18 equal cotangents, of one vector per row, beside a large one."""
    A = one_large_row(3).requires_grad_()
    U, _, _ = batched_svd(A, k=1)
    cotangent = torch.ones(2**18, 1)
    (gradient,) = torch.autograd.grad(U, A, cotangent)
    B = A.detach().double().requires_grad_()
    with kdops.backend("reference"):
        (exact,) = torch.autograd.grad(batched_svd(B, k=1).U, B, cotangent.double())
    assert (gradient - exact).abs().max() <= 1e-4 * exact.abs().max()
