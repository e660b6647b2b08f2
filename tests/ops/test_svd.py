"""Values of batched_svd, batched_svdvals and batched_eigh: accuracy, isolation, signs, errors."""

import pytest
import torch
from support.new_process import run_python
from support.svd_inputs import (
    difficult,
    errors_of_full,
    errors_of_topk,
    failures,
    gate,
    orthonormality,
    stacked,
    two_clusters,
    with_values,
)

import kdops
from kdops import batched_eigh, batched_svd, batched_svdvals

DTYPES = [torch.float32, torch.float64]
SHAPES = [
    *[(n, n) for n in (1, 2, 3, 4, 8, 9, 16, 17, 32, 33, 64, 96, 128)],
    *[(64, 16), (256, 32), (1024, 16), (3, 2), (100, 99), (129, 128), (300, 65)],
    *[(16, 64), (49, 512), (2, 3), (99, 100), (17, 33)],
    *[(1, 7), (7, 1)],
]
REFERENCE_SHAPES = [(1, 1), (9, 9), (64, 64), (256, 32), (49, 512), (1, 7), (40, 5)]
TOPK_SHAPES = [(1024, 16), (256, 32), (64, 64), (64, 256), (49, 512), (128, 128), (9, 9), (40, 5)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_accuracy(backend, shape, dtype):
    if backend == "reference" and shape not in REFERENCE_SHAPES:
        pytest.skip("LAPACK: a few shapes suffice")
    matrices = difficult(dtype, *shape)
    A = stacked(matrices)
    errors = errors_of_full(A, *batched_svd(A))
    assert not failures(matrices, errors, gate(dtype, *shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(48, 32), (64, 16), (16, 200), (300, 64)], ids=str)
def test_accuracy_where_many_values_are_small(backend, shape, dtype):
    """Each costs what goes through a Gram matrix orthogonality: once five times the gate."""
    matrices = two_clusters(dtype, *shape, min(shape) // 2)
    errors = errors_of_full(stacked(matrices), *batched_svd(stacked(matrices)))
    assert not failures(matrices, errors, gate(dtype, *shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(24, 2), (40, 3), (4, 24), (24, 8), (48, 32)], ids=str)
def test_accuracy_where_one_value_is_small(backend, shape, dtype):
    """Its vector's length alone then has three times the error that it has beside others."""
    matrices = two_clusters(dtype, *shape, 1, copies=20)
    errors = errors_of_full(stacked(matrices), *batched_svd(stacked(matrices)))
    assert not failures(matrices, errors, gate(dtype, *shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", TOPK_SHAPES, ids=str)
@pytest.mark.parametrize("k", [1, 2, 4, 16])
def test_accuracy_topk(backend, shape, k, dtype):
    if backend == "reference" and shape not in REFERENCE_SHAPES:
        pytest.skip("LAPACK: a few shapes suffice")
    if k > min(shape):
        pytest.skip("k is larger than the matrix")
    matrices = difficult(dtype, *shape)
    A = stacked(matrices)
    errors = errors_of_topk(A, *batched_svd(A, k))
    assert not failures(matrices, errors, gate(dtype, *shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(16, 16), (64, 64), (128, 128), (256, 32), (49, 512)], ids=str)
def test_parts_equal_the_whole(backend, shape, dtype):
    """Without U, and for singular values alone, the rest is what it was."""
    A = stacked(difficult(dtype, *shape))
    whole = batched_svd(A)
    without_u = batched_svd(A, compute_u=False)
    assert without_u.U is None
    largest = whole.S[:, :1].clamp_min(torch.finfo(dtype).tiny)
    bound = gate(dtype, *shape)
    for S in (without_u.S, batched_svdvals(A)):
        assert ((S - whole.S).abs() / largest).max() <= 2 * bound
    assert orthonormality(without_u.Vh.mT).max() <= bound
    S = batched_svdvals(A, 3)
    assert ((S - whole.S[:, :3]).abs() / largest).max() <= 2 * bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [1, 2, 5, 8, 16, 32, 33, 64, 100, 128])
def test_accuracy_eigh(backend, n, dtype):
    matrices = difficult(dtype, n, n)
    A = stacked(matrices)
    A = A + A.mT
    w, Q = (x.double() for x in batched_eigh(A))
    scale = A.double().abs().amax((-2, -1), keepdim=True).clamp_min(1e-300)
    exact, w = torch.linalg.eigvalsh(A.double() / scale), w / scale[..., 0]
    largest = exact.abs().amax(-1).clamp_min(1e-300)
    residual = torch.linalg.matrix_norm(A.double() / scale - Q * w.unsqueeze(-2) @ Q.mT)
    errors = {
        "A - Q w Qᵀ": residual / torch.linalg.matrix_norm(A.double() / scale).clamp_min(1e-300),
        "Q orthonormal": orthonormality(Q),
        "w": (w - exact).abs().amax(-1) / largest,
        "S descending": (w[..., :-1] - w[..., 1:]).clamp_min(0).sum(-1),
    }
    assert not failures(matrices, errors, gate(dtype, n, n))


def test_eigh_reads_the_lower_triangle(backend):
    A = torch.randn(3, 6, 6, dtype=torch.float64)
    A = A + A.mT
    expected = batched_eigh(A).eigenvalues
    upper = torch.full((6, 6), float("nan"), dtype=torch.float64).triu(1)
    assert torch.equal(batched_eigh(A.tril() + upper).eigenvalues, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(64, 64), (256, 32), (32, 256), (150, 130), (130, 150)], ids=str)
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4, 1e6])
def test_fast_mode(condition, shape, dtype, backend):
    """docs/svd.md: the short side as ever, the long one to eps condition², values to sqrt(eps)."""
    if backend == "native" and min(shape) > 128:
        pytest.skip("torch.linalg computes above 128")
    g = torch.Generator().manual_seed(0)
    values = condition ** -torch.linspace(0, 1, min(shape), dtype=torch.float64)
    A = torch.stack([with_values(values, *shape, g) for _ in range(16)]).to(dtype)
    errors = errors_of_full(A, *batched_svd(A, mode="fast"))
    eps = torch.finfo(dtype).eps
    limit = gate(dtype, *shape)
    values_limit = limit + min(eps * condition, eps**0.5)
    long, short = ("V", "U") if shape[0] < shape[1] else ("U", "V")
    assert errors[f"{short} orthonormal"].max() <= limit
    assert errors["S"].max() <= values_limit
    assert errors["A - U S Vh"].max() <= values_limit
    if eps * condition**2 < 0.1:  # else nothing is promised of it
        assert errors[f"{long} orthonormal"].max() <= limit + 10 * eps * condition**2


# ---- signs --------------------------------------------------------------------------------------


def assert_canonical(Vh):
    tolerance = 8 * torch.finfo(Vh.dtype).eps
    for v in Vh.flatten(0, -2):
        total = (v.max() + v.min()).item()
        if abs(total) > tolerance:
            assert total > 0
        else:
            first = (v.abs() >= v.abs().max() - tolerance).nonzero()[0]
            assert v[first] > 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("shape", [(9, 9), (64, 16), (16, 64), (40, 40), (64, 64)], ids=str)
def test_signs(backend, shape, k, dtype):
    A = torch.randn(20, *shape, dtype=torch.float64)
    A[-1] = torch.eye(*shape)
    A[-2] = 0
    A[-3, :, 0] = -A[-3, :, 1]  # v = (1, -1, ...) / sqrt(2): the tie
    A[-3, :, 2:] = 0
    A = A.to(dtype)
    U, _, Vh = batched_svd(A, k)
    assert_canonical(Vh)
    flipped = batched_svd(-A, k)
    regular = slice(0, -3)  # elsewhere vectors of equal values may rotate
    gap = 1e4 * torch.finfo(dtype).eps
    assert (flipped.Vh - Vh)[regular].abs().max() <= gap
    assert (flipped.U + U)[regular].abs().max() <= gap


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("shape", [(8, 8), (30, 30), (100, 12), (12, 100), (90, 90)], ids=str)
def test_backends_agree_to_rounding(shape, k):
    g = torch.Generator().manual_seed(3)
    values = 1 + torch.arange(min(shape), 0, -1) / 4
    A = torch.stack([with_values(values, *shape, g) for _ in range(9)])
    with kdops.backend("reference"):
        expected = batched_svd(A, k)
    with kdops.backend("native"):
        actual = batched_svd(A, k)
    for x, y in zip(actual, expected, strict=True):
        assert (x - y).abs().max() <= 1e-11


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(isa):
    """Full, top-k and their gradients: the residuals that each compiled set leaves."""
    code = (
        "import torch, kdops; torch.manual_seed(1); worst = 0.0\n"
        "for shape in ((8, 8), (40, 40), (100, 90), (64, 9), (9, 64)):\n"
        "    A = torch.randn(18, *shape, dtype=torch.float64, requires_grad=True)\n"
        "    U, S, Vh = kdops.batched_svd(A)\n"
        "    top = kdops.batched_svd(A, 2)\n"
        "    left = kdops.batched_eigh(A.detach() @ A.detach().mT)[0][..., -1:].sqrt()\n"
        "    loss = lambda S, Vh: (S[..., :2].sum(-1) * Vh[..., :2, 0].pow(2).sum(-1)).sum()\n"
        "    g, h = (torch.autograd.grad(loss(*r[1:]), A)[0] for r in ((U, S, Vh), top))\n"
        "    values = kdops.batched_svdvals(A)\n"
        "    for e in (A - U * S.unsqueeze(-2) @ Vh, top.S - S[:, :2], left - S[:, :1],\n"
        "              values - S, (g - h) / g.abs().amax((1, 2), keepdim=True) / 1e3):\n"
        "        worst = max(worst, e.abs().max().item())\n"
        "print(kdops.build_info()['active_instruction_set'], worst)"
    )
    active, worst = run_python(code, KDOPS_ISA=isa).split()[-2:]
    if active != isa:
        pytest.skip(f"this build or processor has no {isa}")
    assert float(worst) < 1e-11


def test_canonical_false_still_decomposes(backend):
    A = torch.randn(4, 10, 6, dtype=torch.float64)
    for k in (None, 2):
        U, S, Vh = batched_svd(A, k, canonical=False)
        assert not failures(range(4), errors_of_topk(A, U, S, Vh), gate(A.dtype, 10, 6))


# ---- shapes, routing, errors --------------------------------------------------------------------


def test_any_leading_dimensions(backend):
    A = torch.randn(2, 3, 12, 9, dtype=torch.float64)
    for k in (None, 2):
        flat = batched_svd(A.flatten(0, 1), k)
        for batch, expected in ((A, flat), (A[1, 2], [t[5] for t in flat])):
            for x, y in zip(batched_svd(batch, k), expected, strict=True):
                assert torch.equal(x.reshape(y.shape), y)


def test_more_dimensions_than_most_torch_ops_take():  # crashed once
    A = torch.randn(3, 2)
    many = batched_svd(A.reshape(*[1] * 80, 3, 2))
    for x, y in zip(many, batched_svd(A), strict=True):
        assert x.shape == (*[1] * 80, *y.shape)
        assert torch.equal(x.view(y.shape), y)


@pytest.mark.parametrize("shape", [(0, 5, 4), (3, 0, 4), (3, 4, 0), (2, 0, 0)], ids=str)
def test_empty(backend, shape):
    A = torch.randn(shape)
    for actual, expected in zip(
        batched_svd(A), torch.linalg.svd(A, full_matrices=False), strict=True
    ):
        assert actual.shape == expected.shape
    assert batched_svdvals(A).shape == torch.linalg.svdvals(A).shape


def test_larger_than_the_kernels():
    A = torch.randn(2, 140, 150, dtype=torch.float64)
    for k in (None, 3):
        error = errors_of_topk(A, *batched_svd(A, k))
        assert not failures(range(2), error, gate(A.dtype, 140, 150))
    with kdops.backend("native"), pytest.raises(ValueError, match=r"min\(m, n\) <= 128, not 140"):
        batched_svd(A)


@pytest.mark.parametrize(
    ("call", "exception", "message"),
    [
        (
            lambda A: batched_svd(A, 0),
            ValueError,
            r"batched_svd: expected 1 <= k <= .* = 4, got k = 0",
        ),
        (lambda A: batched_svd(A, 5), ValueError, "got k = 5"),
        (
            lambda A: batched_svd(A, True),
            TypeError,
            "batched_svd: expected k to be an int, got bool",
        ),
        (
            lambda A: batched_svd(A, mode="exact"),
            ValueError,
            "mode to be one of 'accurate', 'fast'",
        ),
        (lambda A: batched_svd(A, degenerate="drop"), ValueError, "'mask', 'lorentz', got 'drop'"),
        (lambda A: batched_svd(A.to(torch.cdouble)), TypeError, "float64, .*, got complex128"),
        (lambda A: batched_svd(A.numpy()), TypeError, "expected A to be a Tensor, got ndarray"),
        (lambda A: batched_svdvals(A[0, 0]), ValueError, r"shape \[..., m, n\], got \[4\] \(1-D\)"),
        (lambda A: batched_eigh(A), ValueError, r"batched_eigh: expected A of shape \[..., n, n\]"),
    ],
)
def test_errors(call, exception, message):
    with pytest.raises(exception, match=message):
        call(torch.randn(2, 5, 4, dtype=torch.float64))
