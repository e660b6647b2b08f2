"""The top-k SVD above a small side of 128 on the CPU: three routes, each with its gradient."""

import pytest
import torch
from new_process import run_python
from svd_inputs import (
    difficult,
    errors_of_topk,
    failures,
    gate,
    gauge_invariant_loss,
    gradients_of,
    relative,
    stacked,
    with_values,
)

import kdops
from kdops import batched_svd, batched_svdvals
from kdops.ops.svd import gradient, limits, linalg, reference, registration

pytestmark = pytest.mark.skipif(
    bool(kdops._library.missing), reason="the routes are the compiled kernel's"
)

DTYPES = [torch.float32, torch.float64]
GRAM, DENSE, KRYLOV = 1.0, 2.0, 4.0
# The tridiagonal form below 224, Krylov from there on; widths of whole registers and none.
SHAPES = [(129, 129), (300, 144), (133, 400), (240, 226), (226, 300)]


def spectrum(values, shape, seed=0):
    return with_values(values, *shape, torch.Generator().manual_seed(seed))


def decaying(r):
    """A dominating value, some more, then a long flat tail: what feature maps have."""
    head = torch.tensor([8.0, 4.0, 3.0, 2.5, 2.0, 1.7, 1.4, 1.2, 1.05], dtype=torch.float64)
    return torch.cat([head, torch.linspace(0.7, 0.1, r - len(head), dtype=torch.float64)])


def maps(batch, shape):
    return torch.stack([spectrum(decaying(min(shape)), shape, seed) for seed in range(batch)])


def route(A, k):
    return torch.ops.kdops.svd_topk(A, k, True, True, False)[3].flatten(1)[:, 0].tolist()


def torch_topk(k):
    def decompose(A):
        U, S, Vh = torch.linalg.svd(A, full_matrices=False)
        return U[..., :k], S[..., :k], Vh[..., :k, :]

    return decompose


def with_gradient(A, k, cotangents, **options):
    A = A.detach().requires_grad_()
    outputs = [t for t in batched_svd(A, k, **options) if t is not None]
    (gA,) = torch.autograd.grad(outputs, A, cotangents[-len(outputs) :])
    return (*(t.detach() for t in outputs), gA)


def cotangents_for(A, k):
    *batch, m, n = A.shape
    g = torch.Generator().manual_seed(3)
    sizes = (m, k), (k,), (k, n)
    return [torch.randn(*batch, *size, generator=g, dtype=torch.float64).to(A) for size in sizes]


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
    choice = registration._topk_route("native", "cuda", torch.float32, 256, 512, 4)
    assert choice == "tridiagonalisation of the Gram matrix"
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


# ---- gradients -----------------------------------------------------------------------------------

PARTS = ["USV", "SV", "V", "S", "U"]


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
    torch.set_num_threads(3 - min(threads, 2))
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


def test_memory_kept_for_the_gradient():
    """Beside A itself at most twice A, also for square maps."""
    A = maps(2, (240, 230)).float().requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        batched_svd(A, 4)
    assert sum(x.numel() for x in kept if x.data_ptr() != A.data_ptr()) <= 2 * A.numel()


# ---- torch.linalg above 128: once ---------------------------------------------------------------


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


def test_singular_values_alone_need_no_vectors(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("decomposed in full")

    A = maps(1, (130, 135))
    expected = torch.linalg.svdvals(A)
    monkeypatch.setattr(reference, "safe_svd", refuse)
    torch.testing.assert_close(batched_svdvals(A), expected)
