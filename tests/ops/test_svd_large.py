"""The top-k SVD above a small side of 128 on the CPU: three routes, each with its gradient."""

import pytest
import torch
from support.new_process import run_python
from support.svd_inputs import (
    difficult,
    errors_of_topk,
    failures,
    gate,
    stacked,
    with_values,
)
from support.svd_large import (
    DENSE,
    DTYPES,
    GRAM,
    KRYLOV,
    SHAPES,
    cotangents_for,
    decaying,
    maps,
    route,
    spectrum,
    with_gradient,
)

import kdops
from kdops import batched_svd, batched_svdvals
from kdops.ops.svd import limits, reference, registration

pytestmark = pytest.mark.skipif(
    bool(kdops._library.missing), reason="the routes are the compiled kernel's"
)


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("k", [1, 4, 32])
def test_accuracy(shape, k, dtype):
    matrices = difficult(dtype, *shape)
    with kdops.backend("native"):
        errors = errors_of_topk(stacked(matrices), *batched_svd(stacked(matrices), k))
    assert not failures(matrices, errors, gate(dtype, *shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_route(dtype):
    r = 230
    steps = torch.linspace(2, 1, r, dtype=torch.float64)
    below = torch.where(torch.arange(r) < 3, steps, 5e-3 * decaying(r))  # the 4th is lost in AᵀA
    level = torch.where(torch.arange(r) < 3, steps, 1e-3)  # the 4th and all after it are equal
    plateau = torch.where(torch.arange(r) < 20, 2.0, steps)  # more than 4 first values
    spectra = [decaying(r), steps, below, level, plateau, torch.zeros(r)]
    A = torch.stack([spectrum(values, (240, r)) for values in spectra]).to(dtype)
    assert route(A, 4) == [KRYLOV, GRAM, KRYLOV, DENSE, DENSE, DENSE]
    assert route(A[:1], 9) == route(A[:1, :, :150].contiguous(), 4) == [GRAM]


@pytest.mark.parametrize(("shape", "word"), [((224, 230), "Krylov"), ((223, 230), "tri")])
def test_explain_names_the_route(shape, word, capsys):
    A = maps(1, shape)
    kdops.explain(batched_svd, A, 4)
    printed = capsys.readouterr().out
    assert "native    serves: " in printed
    assert word in printed
    assert route(A, 4) == [KRYLOV if word == "Krylov" else GRAM]


def test_explain_knows_what_cuda_has():
    for shape, k, word in [
        ((129, 512), 8, "Krylov"),
        ((129, 512), 9, "tri"),
        ((128, 512), 4, "tri"),
    ]:
        assert word in registration._topk_route("native", "cuda", torch.float32, *shape, k)
    reason = kdops._backends.obstacle("svd_topk", "native", "cuda", torch.float32, 2100, 2049, 4)
    assert reason == "the kernels take min(m, n) <= 2048, not 2049"


def test_saved_rows_are_those_of_the_kernel():
    for p, k in [(3, 1), (128, 16), (129, 1), (150, 32)]:
        saved = torch.ops.kdops.svd_topk(torch.randn(1, p, p), k, False, True, False)[3]
        assert saved.shape == (1, limits.saved_rows(p, k), p)


def test_too_many_triples_are_refused_by_the_op():
    with pytest.raises(RuntimeError, match=r"expected 1 <= k <= min\(m, n, 32\) = 32, got k = 33"):
        torch.ops.kdops.svd_topk(torch.randn(1, 150, 150), 33, True, True, False)


@pytest.mark.parametrize("copies", [4, 5, 8])
def test_no_copy_of_a_repeated_value_is_missed(copies):
    """`copies` equal values, then a lower one, all among the 8 that a Krylov block must find."""
    values = decaying(230)
    values[:copies] = 3
    values[copies:9] = torch.linspace(2, 1, 9, dtype=torch.float64)[: 9 - copies]
    A = spectrum(values, (240, 230))[None]
    S = batched_svd(A, 8).S[0]
    torch.testing.assert_close(S, values[:8], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["network", "flat", "clustered", "graded"])
@pytest.mark.parametrize("shape", [(300, 144), (240, 400)], ids=str)
def test_vectors_as_exact_as_those_of_gram_and_eigh(shape, kind):
    """At most twice the error of the same in float32, the largest of a few matrices."""
    r, k = min(shape), 4
    g = torch.Generator().manual_seed(1)
    flat = torch.linspace(2, 1, r, dtype=torch.float64)
    head = torch.tensor([2, 1.5, 1.2, 1.2 - 1e-3, 1.1, 1.1 - 1e-4], dtype=torch.float64)
    values = {
        "flat": flat,
        "clustered": torch.cat([head, flat[6:] / 2]),
        "graded": 0.7 ** torch.arange(r, dtype=torch.float64),
    }
    if kind == "network":
        factors = torch.randn(6, shape[0], 24, generator=g) * torch.linspace(1, 0.1, 24)
        noise = 0.5 * torch.randn(6, *shape, generator=g)
        A = (factors @ torch.randn(6, 24, shape[1], generator=g) + noise).relu()
    else:
        A = torch.stack([with_values(values[kind], *shape, g) for _ in range(6)]).float()
    tall = shape[0] >= shape[1]
    plain = torch.linalg.eigh(A.mT @ A if tall else A @ A.mT).eigenvectors.flip(-1)[..., :k]
    U, _, Vh = torch.linalg.svd(A.double(), full_matrices=False)
    exact = (Vh.mT if tall else U)[..., :k]
    U, _, Vh = batched_svd(A, k)

    def error(vectors):
        sign = (vectors.double() * exact).sum(-2, keepdim=True).sign()
        return (vectors.double() * sign - exact).norm(dim=-2).max()

    assert error(Vh.mT if tall else U) <= 2 * error(plain)


# ---- one matrix knows nothing of another ---------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(130, 140), (240, 226)], ids=str)
def test_independent_of_the_batch_and_of_threads(shape, dtype):
    """Alone, elsewhere, on another number of threads, beside a NaN: the same bits."""
    A = torch.cat([maps(3, shape), torch.randn(2, *shape, dtype=torch.float64)]).to(dtype)
    A[1] = 1
    cotangents = cotangents_for(A, 4)
    whole = with_gradient(A, 4, cotangents)
    threads = torch.get_num_threads()
    torch.set_num_threads(3 if threads != 3 else 2)
    try:
        order = [4, 2, 0, 3, 1]
        mixed = with_gradient(A[order], 4, [c[order] for c in cotangents])
    finally:
        torch.set_num_threads(threads)
    spoilt = A.clone()
    spoilt[2, 5, 7] = torch.nan
    beside = with_gradient(spoilt, 4, cotangents)
    for x, y, z in zip(whole, mixed, beside, strict=True):
        assert torch.equal(x[order], y)
        assert z[2].isnan().all()
        assert torch.equal(x[[0, 1, 3, 4]], z[[0, 1, 3, 4]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(140, 130), (226, 240)], ids=str)
def test_powers_of_two_pass_through_exactly(shape, dtype):
    k, scale = 4, 2.0 ** (80 if dtype == torch.float32 else 400)
    A = maps(1, shape).to(dtype)
    gU, gS, gVh = cotangents_for(A, k)
    U, S, Vh, gA = with_gradient(A, k, [gU, gS, gVh])
    for factor in (scale, 1 / scale):
        U2, S2, Vh2, gA2 = with_gradient(A * factor, k, [gU, gS / factor, gVh])
        for x, y in zip((U, S * factor, Vh), (U2, S2, Vh2), strict=True):
            assert torch.equal(x, y)
        torch.testing.assert_close(gA2 * factor, gA)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(isa):
    code = """
        import torch
        from kdops import batched_svd
        for m, n, k in [(131, 150, 4), (231, 226, 4)]:
            g = torch.Generator().manual_seed(0)
            A = torch.randn(2, m, n, generator=g, dtype=torch.float64)
            A += 4 * A[..., :9] @ torch.randn(2, 9, n, generator=g, dtype=torch.float64)
            A.requires_grad_()
            U, S, Vh = batched_svd(A, k)
            exact = torch.linalg.svd(A, full_matrices=False)
            top = (exact.U[..., :k], exact.S[..., :k], exact.Vh[..., :k, :])
            loss = lambda U, S, Vh: (S * (U[..., :99, :] * Vh.mT[..., :99, :]).sum(-2)).sum()
            a, = torch.autograd.grad(loss(U, S, Vh), A)
            b, = torch.autograd.grad(loss(*top), A)
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    """
    run_python(code, KDOPS_ISA=isa)


# ---- torch.linalg above 128: once ---------------------------------------------------------------


def test_singular_values_alone_need_no_vectors(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("decomposed in full")

    A = maps(1, (130, 135))
    expected = torch.linalg.svdvals(A)
    monkeypatch.setattr(reference, "safe_svd", refuse)
    torch.testing.assert_close(batched_svdvals(A), expected)
