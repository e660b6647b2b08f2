"""The edges of the number range: denormal matrices, and gradients of vectors that overflow."""

import pytest
import torch

import kdops
from kdops import batched_eigh, batched_svd, batched_svdvals

SCALES = [1e-42, 3e-39, 1e-38, 1e-37, 1e36]
SHAPES = [(4, 4), (20, 20), (40, 40), (64, 8), (8, 64)]


@pytest.fixture(params=["native", "reference"])
def backend(request):
    with kdops.backend(request.param):
        yield request.param


def scaled(shape, scale):
    """With entries of at least `scale`, so that float32 keeps some digits of every one of them."""
    g = torch.Generator().manual_seed(0)
    A = torch.randn(1, *shape, generator=g, dtype=torch.float64)
    return (A.sign() * (1 + A.abs()) * scale).float()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_singular_values(backend, shape, scale):
    A = scaled(shape, scale).requires_grad_()
    U, expected, Vh = torch.linalg.svd(A.detach().double(), full_matrices=False)
    for decompose in (
        batched_svdvals,
        lambda A: batched_svd(A).S,
        lambda A: batched_svd(A, None, compute_u=False).S,
    ):
        S = decompose(A)
        # a denormal number has no more digits than it has bits
        slack = 1e-5 * expected[..., :1] + 2 * torch.finfo(A.dtype).smallest_normal * 2.0**-23
        assert ((S - expected).abs() <= slack).all()
        (gA,) = torch.autograd.grad(S.sum(), A)
        assert (gA - U @ Vh).abs().max() <= 1e-3


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("degenerate", ["mask", "lorentz"])
def test_vectors(backend, shape, scale, degenerate):
    """Orthonormal; cotangents of zero give exactly zero, those of denormal matrices are finite."""
    A = scaled(shape, scale).requires_grad_()
    outputs = batched_svd(A, degenerate=degenerate)
    eye = torch.eye(min(shape))
    for Q in (outputs.U, outputs.Vh.mT):
        assert (Q.mT @ Q - eye).abs().max() <= 1e-5
    zeros = [torch.zeros_like(t) for t in outputs]
    (gA,) = torch.autograd.grad(outputs, A, zeros, retain_graph=True)
    assert torch.equal(gA, torch.zeros_like(A))
    if scale < 1e-39 or scale > 1:
        (gA,) = torch.autograd.grad(outputs, A, [torch.ones_like(t) for t in outputs])
        assert gA.isfinite().all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n", [4, 20, 40])
def test_eigh(backend, n, scale):
    A = scaled((n, n), scale)
    A = (A.tril() + A.tril(-1).mT).requires_grad_()
    values, vectors = batched_eigh(A)
    expected, Q = torch.linalg.eigh(A.detach().double())
    slack = 1e-5 * expected.abs().max() + 2 * torch.finfo(A.dtype).smallest_normal * 2.0**-23
    assert ((values - expected).abs() <= slack).all()
    (gA,) = torch.autograd.grad(values.abs().sum(), A, retain_graph=True)
    assert (gA - (Q * expected.sign().unsqueeze(-2)) @ Q.mT).abs().max() <= 1e-3
    (gA,) = torch.autograd.grad(
        (values, vectors), A, [torch.zeros_like(t) for t in (values, vectors)]
    )
    assert torch.equal(gA, torch.zeros_like(A))
