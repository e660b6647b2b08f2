"""The edges of the number range: denormal matrices, and gradients of vectors that overflow."""

import pytest
import torch
from support.svd_inputs import top_of_small_matrices, with_values

from kdops import batched_eigh, batched_svd, batched_svdvals

SCALES = [1e-42, 3e-39, 1e-38, 1e-37, 1e36]
SHAPES = [(4, 4), (20, 20), (40, 40), (64, 8), (8, 64)]


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
    (gA,) = torch.autograd.grad(outputs, A, [torch.ones_like(t) for t in outputs])
    assert gA.isfinite().all()


TOP = [(40, 30), (64, 64), (30, 80), (150, 129), (133, 200)]


@pytest.mark.parametrize("shape", TOP, ids=str)
def test_vectors_of_small_matrices(backend, shape):
    top_of_small_matrices(shape, "cpu")


@pytest.mark.parametrize("shape", TOP, ids=str)
def test_hard_matrices_that_are_small_give_what_they_give_at_size_one(backend, shape):
    """What they give at size one is compared with float64 elsewhere. The clustered values are as
    close as a Gram matrix tells apart: nearer, the vectors are not the same to rounding."""
    g = torch.Generator().manual_seed(3)
    r = min(shape)
    noise = torch.randn(shape, generator=g, dtype=torch.float64) / 4096
    spectra = {
        "far apart": torch.where(torch.arange(r) < 3, 1.0, 1e-4),
        "clustered": torch.where(torch.arange(r) < 6, 1.0, 0.5) + torch.arange(r) * 3e-5,
        "graded": 0.75 ** torch.arange(r).clamp(max=40),
    }
    matrices = [with_values(values.tolist(), *shape, g) for values in spectra.values()]
    matrices.append(torch.eye(*shape, dtype=torch.float64) * torch.linspace(2, 1, shape[1]) + noise)
    A = torch.stack(matrices).float()
    results = []
    for scale in (1.0, 2.0**-95):
        leaf = (A * scale).requires_grad_()
        triples = batched_svd(leaf, 4)
        given = [triples.U.cos(), triples.S / scale / scale, triples.Vh.cos()]
        (gA,) = torch.autograd.grad(triples, leaf, given)
        results.append((triples.U, triples.S / scale, triples.Vh, gA * scale))
    for one, small in zip(*results, strict=True):
        torch.testing.assert_close(small, one)


@pytest.mark.parametrize("exponent", [-95, -108, -118, -122])
@pytest.mark.parametrize("shape", TOP, ids=str)
def test_values_far_below_a_small_one(backend, shape, exponent):
    """1 / s_k overflows where s_1 does not count yet."""
    g = torch.Generator().manual_seed(2)
    values = [1.0, 1e-1, 1e-3, 1e-6] + [1e-7] * (min(shape) - 4)
    A = (with_values(values, *shape, g) * 2.0**exponent).float().requires_grad_()
    outputs = batched_svd(A, 4)
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
