"""batched_polar and batched_nuclear_norm: values, gradients of three orders, degenerate inputs.

The oracle of the derivatives is torch's autograd through Newton's iteration for the polar factor,
which knows no singular value: it has a derivative of any order where A has full rank.
"""

import pytest
import torch
from support.svd_inputs import difficult, gate, orthonormality, relative, stacked, with_values

from kdops import batched_nuclear_norm, batched_polar
from kdops.ops.svd import calls, polar_gradient

SHAPES = [(5, 5), (8, 5), (5, 8)]
DTYPES = [torch.float32, torch.float64]
SPECTRA = {
    "apart": [3.0, 2.5, 2.0, 1.0, 0.5],
    "equal": [1.0] * 5,
    "two clusters": [2.0, 2.0, 2.0 - 1e-13, 0.5 + 1e-9, 0.5],
    "graded": [1.0, 1e-1, 1e-2, 1e-3, 1e-4],
}


def matrix(values, shape, seed=0):
    return with_values(values, *shape, torch.Generator().manual_seed(seed))


def newton(A):
    if A.shape[-2] < A.shape[-1]:
        P = newton(A.mT)[0].mT
        return P, P.mT @ A
    Q, X = torch.linalg.qr(A)
    for _ in range(25):
        scale = (torch.linalg.inv(X).norm() / X.norm()).detach().sqrt()
        X = (scale * X + torch.linalg.inv(X).mT / scale) / 2
    return Q @ X, X.mT @ Q.mT @ A


def weighted(function, which="UH"):
    """A scalar of the results of `function` that sees all entries, by terms of third degree."""

    def loss(A):
        total = 0
        for name, X in zip("UH", function(A), strict=True):
            if name in which:
                w = torch.linspace(-1, 2, X.numel(), dtype=torch.float64).reshape(X.shape).to(X)
                total = total + (w * X + 0.1 * w * X**3).sum()
        return total

    return loss


def two_orders(loss, A):
    """The gradient, and that of its product with a fixed direction."""
    A = A.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(A), A, create_graph=True)
    direction = torch.linspace(1, -2, A.numel(), dtype=A.dtype).reshape(A.shape)
    (second,) = torch.autograd.grad((first * direction).sum(), A)
    return first.detach(), second


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (9, 9), (64, 16), (16, 64), (30, 40)], ids=str)
def test_accuracy(backend, shape, dtype):
    matrices = difficult(dtype, *shape)
    A = stacked(matrices)
    U, H = batched_polar(A)
    limit = gate(dtype, *shape)
    unit = A.abs().amax((-2, -1), keepdim=True).double().clamp_min(1e-300)
    A, U, H = A.double() / unit, U.double(), H.double() / unit
    norm = torch.linalg.matrix_norm(A, ord=2).clamp_min(1e-300)
    _, S, Vh = torch.linalg.svd(A, full_matrices=False)
    exact = (Vh.mT * S.unsqueeze(-2)) @ Vh
    assert torch.equal(H, H.mT)
    assert (torch.linalg.matrix_norm(A - U @ H) <= limit * norm).all()
    assert (torch.linalg.matrix_norm(H - exact) <= limit * norm).all()
    assert (torch.linalg.eigvalsh(H)[..., 0] >= -limit * norm).all()
    assert (orthonormality(U if shape[0] >= shape[1] else U.mT) <= limit).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(9, 9), (256, 32), (16, 64), (130, 131)], ids=str)
def test_nuclear_norm(shape, dtype):
    """Watched or not: the two ways agree to rounding."""
    A = stacked(difficult(dtype, *shape))
    expected = torch.linalg.svdvals(A.double()).sum(-1)
    slack = gate(dtype, *shape) * expected + torch.finfo(dtype).tiny
    for watched in (False, True):
        norm = batched_nuclear_norm(A.clone().requires_grad_(watched)).detach()
        assert ((norm.double() - expected).abs() <= slack).all(), watched


def test_nothing_is_decomposed_twice(monkeypatch):
    """Values alone without a gradient; with one, the forward's vectors serve all orders."""
    counts = {"full": 0, "values": 0}

    def counted(name, function):
        def call(*arguments):
            counts[name] += 1
            return function(*arguments)

        monkeypatch.setattr(calls, name, call)

    counted("full", calls.full)
    counted("values", calls.values)
    A = torch.randn(2, 7, 4, dtype=torch.float64)
    batched_nuclear_norm(A)
    assert counts == {"full": 0, "values": 1}
    two_orders(lambda A: batched_nuclear_norm(A).pow(2).sum(), A)
    assert counts == {"full": 1, "values": 1}
    two_orders(weighted(batched_polar), A)
    assert counts == {"full": 2, "values": 1}


# ---- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", SPECTRA)
def test_two_orders_against_newton(backend, shape, kind):
    A = matrix(SPECTRA[kind], shape)
    for which in ("U", "H", "UH"):
        actual = two_orders(weighted(batched_polar, which), A)
        expected = two_orders(weighted(newton, which), A)
        # the iteration inverts AᵀA: the digits of the oracle
        limit = 1e-6 if kind == "graded" else 1e-10
        for a, e in zip(actual, expected, strict=True):
            assert relative(a, e) <= limit, which
    actual = two_orders(lambda A: batched_nuclear_norm(A) ** 2, A)
    expected = two_orders(lambda A: (newton(A)[0] * A).sum() ** 2, A)
    for a, e in zip(actual, expected, strict=True):
        assert relative(a, e) <= limit


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (3, 4)], ids=str)
def test_third_order(backend, shape):
    A = matrix([2.0, 2.0, 0.5], shape).requires_grad_()

    def gradient(A):
        loss = weighted(batched_polar)(A) + batched_nuclear_norm(A) ** 2
        return torch.autograd.grad(loss, A, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(gradient, A)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_stretch_of_graded_matrices_in_single_precision(backend, shape):
    """The gradient of H has no small divisor: off by what a rounding of A does to the vectors, and
    the tangent, which solves for it, by no more than that."""
    A = matrix([1, 1e-1, 1e-2, 1e-3, 3e-5], shape).float()
    exact = two_orders(weighted(newton, "H"), A.double())[0]
    leaf = A.clone().requires_grad_()
    (gA,) = torch.autograd.grad(weighted(batched_polar, "H")(leaf), leaf)
    assert relative(gA.double(), exact) <= torch.finfo(A.dtype).eps / 3e-5
    direction = torch.linspace(1, -2, A.numel()).reshape(A.shape)
    tangent = torch.func.jvp(weighted(batched_polar, "H"), (A,), (direction,))[1]
    assert abs(tangent - (gA * direction).sum()) <= 1e-5 * (gA * direction).abs().sum()


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e25])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scale_of_the_gradient(backend, shape, scale):
    """U does not see the scale, H and the norm grow with it: so do their gradients in reverse."""
    w = torch.linspace(-1, 2, shape[1] ** 2).reshape(shape[1], -1)
    of = {
        "U": lambda A, c: (batched_polar(A).U[..., 0]).sum() * c,
        "H": lambda A, c: (batched_polar(A).H * w).sum(),
        "norm": lambda A, c: batched_nuclear_norm(A),
    }
    A = matrix(SPECTRA["two clusters"], shape).float()
    for name, loss in of.items():
        one, scaled = (A * c for c in (1, scale))
        one, scaled = one.requires_grad_(), scaled.requires_grad_()
        (expected,) = torch.autograd.grad(loss(one, 1), one)
        (actual,) = torch.autograd.grad(loss(scaled, scale), scaled)
        assert relative(actual, expected) <= 1e-5, name


# ---- degenerate inputs ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (40, 24), (24, 40)], ids=str)
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_rank_deficient(backend, shape, rank, dtype):
    """The norm's gradient is the subgradient of smallest norm; all orders are finite."""
    values = torch.zeros(min(shape))
    values[:rank] = torch.tensor([3.0, 3.0, 0.5])[:rank]
    A = matrix(values, shape).to(dtype).requires_grad_()
    (gA,) = torch.autograd.grad(batched_nuclear_norm(A), A)
    U, _, Vh = torch.linalg.svd(A.detach().double(), full_matrices=False)
    exact = U[:, :rank] @ Vh[:rank]
    assert (gA.double() - exact).abs().max() <= gate(dtype, *shape) * 10
    assert all(g.isfinite().all() for g in two_orders(weighted(batched_polar), A.detach()))
    losses = (lambda A: batched_nuclear_norm(A) ** 2, weighted(batched_polar, "H"))
    for loss in losses:
        assert all(g.isfinite().all() for g in two_orders(loss, A.detach()))
    trace = batched_polar(A).H.diagonal(dim1=-2, dim2=-1).sum()
    (of_trace,) = torch.autograd.grad(trace, A)
    assert (of_trace - gA).abs().max() <= gate(dtype, *shape) * 10


def test_zero_has_gradient_zero(backend):
    A = torch.zeros(2, 4, 3, requires_grad=True)
    U, H = batched_polar(A)
    (gA,) = torch.autograd.grad(U.sum() + H.sum() + batched_nuclear_norm(A).sum(), A)
    assert torch.equal(gA, torch.zeros_like(A))
    assert torch.equal(H, torch.zeros(2, 3, 3))


@pytest.mark.parametrize("scale", [1e-38, 1e-40, 3e38])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_edges_of_the_range(backend, shape, scale):
    """Finite, also where 1/s is no number; the norm's gradient does not see the scale."""
    A = (torch.eye(*shape) * torch.linspace(1, 0.5, shape[1]) * scale).requires_grad_()
    (gA,) = torch.autograd.grad(batched_nuclear_norm(A), A)
    assert relative(gA, torch.eye(*shape)) <= 1e-5
    U, H = batched_polar(A)
    assert (U - torch.eye(*shape)).abs().max() <= 1e-5
    assert H.isfinite().all()
    (gA,) = torch.autograd.grad((U.sum() + H.sum()), A)
    assert gA.isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_bad_matrix_spoils_itself_alone(backend, shape, bad):
    good = torch.randn(3, *shape)
    spoilt = good.clone()
    spoilt[1, 0, 2] = bad
    results = []
    for A in (good, spoilt):
        A.requires_grad_()
        U, H = batched_polar(A)
        norm = batched_nuclear_norm(A)
        (gA,) = torch.autograd.grad(U.sum() + (H**2).sum() + norm.sum(), A)
        results.append([t.detach() for t in (U, H, norm, batched_nuclear_norm(A.detach()), gA)])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean[::2], dirty[::2])
        assert dirty[1].isnan().all()


def test_empty_matrices_keep_the_graph():
    for shape in ((2, 0, 3), (2, 3, 0), (0, 4, 3)):
        A = torch.ones(shape, requires_grad=True)
        U, H = batched_polar(A)
        assert (U.shape, H.shape) == (shape, (shape[0], shape[2], shape[2]))
        assert torch.equal(H, torch.zeros_like(H))
        norm = batched_nuclear_norm(A)
        assert torch.equal(norm, torch.zeros(shape[0]))
        (gA,) = torch.autograd.grad(U.sum() + H.sum() + norm.sum(), A)
        assert gA.shape == shape


@pytest.mark.slow
def test_opcheck():
    A, g = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    triples = [t.contiguous() for t in torch.linalg.svd(A, full_matrices=False)]
    plain = torch.ops.kdops_plain
    P, H = polar_gradient.polar(A, *triples)
    for op, arguments in {
        plain.polar: (A.requires_grad_(), *triples),
        plain.polar_backward: (g.requires_grad_(), None, P, H, *triples),
        plain.nuclear_norm: (A, *triples),
        plain.nuclear_norm_backward: (torch.ones(2, requires_grad=True), A, *triples),
        plain.polar_solve: (H.requires_grad_(), H, triples[2], triples[1], "pair"),
    }.items():
        torch.library.opcheck(op.default, arguments)
