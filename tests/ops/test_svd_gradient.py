"""Gradients of batched_svd, batched_svdvals and batched_eigh."""

import pytest
import torch
from support.svd_inputs import (
    difficult,
    gauge_invariant_loss,
    gradients_of,
    relative,
    stacked,
    with_values,
)

import kdops
from kdops import batched_eigh, batched_svd, batched_svdvals
from kdops.ops.svd import registration

SHAPES = [(1024, 64), (256, 128), (64, 256), (16, 512), (9, 9)]
SHAPES += [pytest.param((4096, 32), marks=pytest.mark.slow)]
PARTS = ["USV", "SV", "V", "S", "U", "UV"]


def torch_svd(A):
    return torch.linalg.svd(A, full_matrices=False)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("k", [None, 1, 4])
def test_agrees_with_torch(backend, shape, k):
    A = torch.randn(2, *shape, dtype=torch.float64)
    loss = gauge_invariant_loss(shape, k or 5)
    expected = gradients_of(torch_svd, A, loss, PARTS)
    actual = gradients_of(lambda A: batched_svd(A, k), A, loss, PARTS)
    for part, a, e in zip(PARTS, actual, expected, strict=True):
        assert relative(a, e) <= 1e-8, part
    policy_or_parts = (
        (lambda A: batched_svd(A, k, degenerate="lorentz"), "USV"),
        (lambda A: batched_svd(A, k, compute_u=False), "SV"),
    )
    for decompose, part in policy_or_parts:
        (a,) = gradients_of(decompose, A, loss, [part])
        assert relative(a, expected[PARTS.index(part)]) <= 1e-8, part


def test_ten_thousand_matrices(backend):
    A = torch.randn(10_000, 9, 9, dtype=torch.float64)
    loss = gauge_invariant_loss((9, 9), 9)
    (expected,) = gradients_of(torch_svd, A, loss, ["USV"])
    (actual,) = gradients_of(batched_svd, A, loss, ["USV"])
    # torch's own form divides by s_j² - s_i²: compare where that is harmless
    S = torch.linalg.svdvals(A)
    distinct = torch.minimum((S[:, :-1] - S[:, 1:]).amin(-1), S[:, -1]) > 1e-4
    assert distinct.sum() > 9_900
    assert relative(actual[distinct], expected[distinct]) <= 1e-8


@pytest.mark.parametrize("options", [{}, {"compute_u": False}, {"degenerate": "lorentz"}], ids=str)
@pytest.mark.parametrize(
    ("shape", "k"), [((4, 3), None), ((3, 4), None), ((4, 3), 1), ((3, 4), 1), ((5, 6), 2)], ids=str
)
def test_gradcheck_to_second_order(backend, shape, k, options):
    A = torch.randn(1, *shape, dtype=torch.float64, requires_grad=True)

    def outputs(A):
        return tuple(t for t in batched_svd(A, k, **options) if t is not None)

    assert torch.autograd.gradcheck(outputs, (A,))
    assert torch.autograd.gradgradcheck(outputs, (A,))


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (3, 4)], ids=str)
def test_third_order_of_few(backend, shape):
    """The part off the top k was lost once: torch.func.vjp had let go of what it had saved."""
    A = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def gradient(A):
        U, S, Vh = batched_svd(A, 1)
        loss = (U[..., 0].sin() + S + Vh[..., 1].cos()).sum()
        return torch.autograd.grad(loss, A, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(gradient, A)


def test_second_order_of_values_and_eigh(backend):
    A = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(batched_svdvals, (A,))
    assert torch.autograd.gradgradcheck(lambda A: batched_svdvals(A, 1), (A,))
    assert torch.autograd.gradgradcheck(lambda A: tuple(batched_eigh(A + A.mT)), (A,))


# ---- degenerate spectra -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("degenerate", ["mask", "lorentz"])
@pytest.mark.parametrize("shape", [(64, 64), (256, 32), (64, 256), (9, 9), (1, 5)], ids=str)
def test_always_finite(backend, shape, degenerate, dtype):
    matrices = difficult(dtype, *shape)
    A = stacked(matrices)
    for k in (None, 1, 2, 4, 8, 16):
        if k is not None and k > min(shape):
            continue
        for compute_u in (True, False):
            X = A.clone().requires_grad_()
            result = batched_svd(X, k, compute_u=compute_u, degenerate=degenerate)
            outputs = [t for t in result if t is not None]
            (gA,) = torch.autograd.grad(outputs, X, [torch.randn_like(t) for t in outputs])
            finite = gA.isfinite().all(-1).all(-1).tolist()
            assert all(finite), (k, [n for n, ok in zip(matrices, finite, strict=True) if not ok])


def central_difference(loss, A, direction, step=1e-5):
    return (loss(A + step * direction) - loss(A - step * direction)) / (2 * step)


@pytest.mark.parametrize("values", [(3, 3, 2, 1, 1), (3, 2, 2, 0, 0), (1, 1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("shape", [(12, 5), (5, 5), (5, 12)], ids=str)
@pytest.mark.parametrize("full", [True, False], ids=["full", "top"])
def test_mask_is_exact_for_projectors(backend, shape, values, full):
    """The loss sees the space of the first `cluster` triples, where they are set apart."""
    g = torch.Generator().manual_seed(1)
    A = with_values(values, *shape, g)
    cluster = next((i for i in range(1, 5) if values[i] != values[i - 1]), 5)
    if not full and 2 * cluster >= 5:
        pytest.skip("served by the full decomposition")
    on_u = torch.randn(shape[0], shape[0], generator=g, dtype=torch.float64)
    on_v = torch.randn(shape[1], shape[1], generator=g, dtype=torch.float64)
    mixed = torch.randn(*shape, generator=g, dtype=torch.float64)

    def loss_of(U, S, Vh):
        U, Vh = U[..., :cluster], Vh[..., :cluster, :]
        return (on_u * (U @ U.mT)).sum() + (on_v * (Vh.mT @ Vh)).sum() + (mixed * (U @ Vh)).sum()

    X = A.clone().requires_grad_()
    loss_of(*batched_svd(X, None if full else cluster)).backward()
    for _ in range(3):
        direction = torch.randn(A.shape, generator=g, dtype=torch.float64)
        expected = central_difference(lambda A: loss_of(*torch_svd(A)), A, direction)
        actual = (X.grad * direction).sum()
        assert abs(actual - expected) <= 1e-7 * torch.linalg.matrix_norm(X.grad)


def test_nuclear_norm_at_equal_values(backend):
    """sum(S) of an orthonormal matrix Q has the gradient Q."""
    Q = torch.linalg.qr(torch.randn(3, 40, 8, dtype=torch.float64))[0].requires_grad_()
    for S in (batched_svd(Q).S, batched_svdvals(Q), batched_svd(Q, compute_u=False).S):
        (gQ,) = torch.autograd.grad(S.sum(), Q)
        assert (gQ - Q).abs().max() <= 1e-12


@pytest.mark.parametrize("degenerate", ["mask", "lorentz"])
def test_pairs_without_cotangent_contribute_nothing(backend, degenerate):
    """Dead channels and a repeated tail do not disturb a loss on the first vector."""
    g = torch.Generator().manual_seed(2)
    A = with_values([4, 1, 1, 1, 0, 0, 0, 0], 20, 8, g)
    target = torch.randn(8, generator=g, dtype=torch.float64)

    def loss(Vh):
        return (Vh[..., 0, :] @ target) ** 2

    grads = []
    for k in (None, 1):
        X = A.clone().requires_grad_()
        loss(batched_svd(X, k, degenerate=degenerate).Vh).backward()
        grads.append(X.grad)
    direction = torch.randn(A.shape, generator=g, dtype=torch.float64)
    expected = central_difference(lambda A: loss(torch_svd(A)[2]), A, direction)
    for grad in grads:
        assert abs((grad * direction).sum() - expected) <= 1e-7 * torch.linalg.matrix_norm(grad)


def test_zero_cotangents_give_exactly_zero(backend):
    A = torch.eye(8, dtype=torch.float64).expand(2, 8, 8).clone().requires_grad_()
    for k in (None, 2):
        outputs = tuple(batched_svd(A, k))
        (gA,) = torch.autograd.grad(outputs, A, [torch.zeros_like(t) for t in outputs])
        assert torch.equal(gA, torch.zeros_like(gA))


@pytest.mark.parametrize("k", [None, 3])
def test_scale_of_the_gradient(backend, k):
    """Vectors do not change with the scale of A, so their gradient is 1/scale as large."""
    g = torch.Generator().manual_seed(4)
    A = torch.stack([with_values(torch.arange(10, 0, -1), 20, 10, g) for _ in range(4)]).float()
    cotangent = torch.randn(4, k or 10, 10)

    def gradient(A):
        A = A.clone().requires_grad_()
        return torch.autograd.grad(batched_svd(A, k).Vh, A, cotangent)[0]

    expected = gradient(A)
    for power in (-66, 66):  # 2^66 is about 7e19
        actual = gradient(A * 2.0**power) * 2.0**power
        assert relative(actual, expected) <= 1e-5


@pytest.mark.parametrize("shape", [(7, 7), (40, 14), (14, 40), (64, 32), (48, 33)], ids=str)
@pytest.mark.parametrize("k", [None, 7])
def test_u_is_found_where_the_gradient_would_make_it_up(shape, k, monkeypatch):
    """KD-SVD asks for k + 3 vectors and no U: maps with a small side up to 14 are decomposed in
    full. The value is that without a gradient, bit by bit."""
    flags, svd = [], registration.SVD.run

    def noted(A, with_u, *options):
        flags.append(with_u)
        return svd(A, with_u, *options)

    monkeypatch.setattr(registration.SVD, "run", noted)
    A = torch.randn(3, *shape)
    with kdops.backend("native"):
        plain = batched_svd(A, k, compute_u=False)
        watched = batched_svd(A.requires_grad_(), k, compute_u=False)
    few = k is not None and 2 * k < min(shape)
    assert flags == ([] if few else [False, min(shape) <= 32])
    assert plain.U is watched.U is None
    assert torch.equal(plain.S, watched.S)
    assert torch.equal(plain.Vh, watched.Vh)
