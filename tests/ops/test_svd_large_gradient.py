"""The gradient of the top-k SVD above a small side of 128 on the CPU, on each of its routes."""

import pytest
import torch
from support.svd_inputs import (
    difficult,
    gauge_invariant_loss,
    gradients_of,
    relative,
    stacked,
)
from support.svd_large import (
    DTYPES,
    GRAM,
    KRYLOV,
    PARTS,
    SHAPES,
    cotangents_for,
    decaying,
    maps,
    route,
    spectrum,
    torch_topk,
    with_gradient,
)

import kdops
from kdops import batched_svd
from kdops.ops.svd import gradient, linalg, reference

pytestmark = pytest.mark.skipif(
    bool(kdops._library.missing), reason="the routes are the compiled kernel's"
)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("k", [1, 4, 12])
def test_gradient_agrees_with_torch(shape, k):
    A = maps(2, shape)
    loss = gauge_invariant_loss(shape, k)
    expected = gradients_of(torch_topk(k), A, loss, PARTS)
    with kdops.backend("native"):
        actual = gradients_of(lambda A: batched_svd(A, k), A, loss, PARTS)
        turned = gradients_of(lambda A: batched_svd(A.mT.contiguous().mT, k), A, loss, PARTS)
        (lorentz,) = gradients_of(lambda A: batched_svd(A, k, degenerate="lorentz"), A, loss, "V")
        (without_u,) = gradients_of(lambda A: batched_svd(A, k, compute_u=False), A, loss, ["SV"])
    for part, a, t, e in zip(PARTS, actual, turned, expected, strict=True):
        assert relative(a, e) <= 1e-8, part
        assert relative(t, e) <= 1e-8, part
    assert relative(lorentz, expected[PARTS.index("V")]) <= 1e-8
    assert relative(without_u, expected[PARTS.index("SV")]) <= 1e-8


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_in_single_precision(shape):
    A = maps(2, shape)
    loss = gauge_invariant_loss(shape, 4)
    expected = gradients_of(torch_topk(4), A, loss, PARTS)
    actual = gradients_of(lambda A: batched_svd(A, 4), A.float(), loss, PARTS)
    for part, a, e in zip(PARTS, actual, expected, strict=True):
        assert relative(a, e) <= 1e-4, part


def steep(kind, r):
    """Values of which a Gram matrix resolves the first only: a mean, massive tokens, a decay."""
    tail = 0.97 ** torch.arange(r, dtype=torch.float64)
    if kind == "decay":
        return 0.5 ** torch.arange(r, dtype=torch.float64)
    head = {"mean": [60.0], "tokens": [2e3, 1e3, 20.0, 19.0]}[kind]
    return torch.cat([torch.tensor(head, dtype=torch.float64), tail[len(head) :]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(150, 140), (140, 150), (240, 230), (230, 240)], ids=str)
@pytest.mark.parametrize(("kind", "k"), [("mean", 4), ("tokens", 8), ("tokens", 12), ("decay", 10)])
def test_steep_spectra(kind, k, shape, dtype):
    """Triples below the resolution of a Gram matrix come in further rounds, their gradient too."""
    A = spectrum(steep(kind, min(shape)), shape)[None].to(dtype)
    assert route(A, k)[0] in (GRAM, KRYLOV)
    cotangents = cotangents_for(A.double(), k)
    exact = with_gradient(A.double(), k, cotangents)
    with kdops.backend("reference"):
        plain = with_gradient(A.double(), k, cotangents)
    errors = [relative(x, y) for x, y in zip(exact, plain, strict=True)]
    assert max(errors) <= 1e-9, errors
    U, _, Vh, gA = with_gradient(A, k, [g.to(dtype) for g in cotangents])
    eye = torch.eye(k, dtype=dtype)
    for gram in (U.mT @ U, Vh @ Vh.mT):
        assert (gram - eye).abs().max() <= 64 * torch.finfo(dtype).eps
    gate = 300 * torch.finfo(dtype).eps / (plain[1].diff().abs().min() / plain[1][0, 0])
    assert relative(gA, plain[3]) <= gate


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("degenerate", ["mask", "lorentz"])
@pytest.mark.parametrize("shape", [(129, 150), (230, 226)], ids=str)
def test_gradient_is_always_finite(shape, degenerate, dtype):
    matrices = difficult(dtype, *shape)
    A = stacked(matrices)
    *_, gA = with_gradient(A, 4, cotangents_for(A, 4), degenerate=degenerate)
    finite = gA.isfinite().all(-1).all(-1).tolist()
    assert all(finite), [n for n, ok in zip(matrices, finite, strict=True) if not ok]


@pytest.mark.parametrize("below", [1e-3, 1e-6, 1e-9, 0.0])
@pytest.mark.parametrize("r", [140, 230])
def test_a_value_close_to_the_last(below, r):
    """s_5 = s_4 (1 - below), k = 4: a loss on the first values and vectors keeps its gradient."""
    values = decaying(r)
    values[4] = values[3] * (1 - below)
    A = spectrum(values, (260, r))[None].requires_grad_()
    weights = torch.randn(r, r, dtype=torch.float64)

    def loss(S, Vh):
        v = Vh[..., :1, :]
        return (v @ weights @ v.mT).sum() + (S[..., :3] ** 2).sum()

    _, S, Vh = batched_svd(A, 4)
    (actual,) = torch.autograd.grad(loss(S, Vh), A)
    U, S, Vh = torch.linalg.svd(A.detach()[0], full_matrices=False)
    v = Vh[:1].mT
    gaps = S[0] ** 2 - S[1:] ** 2
    x = Vh[1:].mT @ ((Vh[1:] @ (weights + weights.mT) @ v) / gaps[:, None])
    A0 = A.detach()[0]
    expected = A0 @ (x @ v.mT + v @ x.mT) + 2 * (U[:, :3] * S[:3]) @ Vh[:3]
    torch.testing.assert_close(actual[0], expected, rtol=1e-8, atol=1e-8)


def test_second_order_agrees_with_torch():
    A = maps(1, (226, 230))
    direction = torch.randn_like(A)
    loss = gauge_invariant_loss((226, 230), 2)

    def second(decompose):
        X = A.clone().requires_grad_()
        (gA,) = torch.autograd.grad(loss(*decompose(X), "USV"), X, create_graph=True)
        return torch.autograd.grad((gA * direction).sum(), X)[0]

    assert relative(second(lambda X: batched_svd(X, 2)), second(torch_topk(2))) <= 1e-8


def test_memory_kept_for_the_gradient():
    """Beside A itself at most twice A, also for square maps."""
    A = maps(2, (240, 230)).float().requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        batched_svd(A, 4)
    assert sum(x.numel() for x in kept if x.data_ptr() != A.data_ptr()) <= 2 * A.numel()


@pytest.mark.parametrize("k", [None, 3])
def test_the_gradient_reuses_the_decomposition(k, monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(1)
        return linalg.safe_svd(*arguments)

    monkeypatch.setattr(reference, "safe_svd", counted)
    monkeypatch.setattr(gradient, "safe_svd", counted)
    A = maps(1, (130, 135)).requires_grad_()
    with kdops.backend("reference"):
        batched_svd(A, k).Vh[..., 0, :5].sum().backward()
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [1, 4])
def test_cotangents_of_any_size(k, dtype):
    """The squares that conjugate gradients take of them neither vanish nor overflow."""
    A = maps(1, (240, 230)).to(dtype).requires_grad_()
    assert route(A.detach(), k) == [KRYLOV]
    U, S, Vh = batched_svd(A, k)
    cotangents = [torch.randn_like(x) for x in (U, S, Vh)]
    large = 2.0 ** (90 if dtype == torch.float32 else 600)

    def gradient_of(scale):
        scaled = [g * scale for g in cotangents]
        (gA,) = torch.autograd.grad((U, S, Vh), A, scaled, retain_graph=True)
        return gA / scale

    for scale in (large, 1 / large):
        assert relative(gradient_of(scale), gradient_of(1.0)) <= 1e3 * torch.finfo(dtype).eps
