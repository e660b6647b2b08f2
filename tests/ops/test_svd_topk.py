"""The top-k SVD kernel on the CPU: both routes, every instruction set, no trace of the batch."""

import pytest
import torch
from support.new_process import run_python
from support.svd_inputs import with_values
from torch._subclasses.fake_tensor import FakeTensorMode

import kdops
from kdops import batched_svd

pytestmark = pytest.mark.skipif(
    bool(kdops._library.missing), reason="the routes are the compiled kernel's"
)

DTYPES = [torch.float32, torch.float64]
# Whole registers and chunks, and none of them; the wide one is longer than a chunk of columns.
SHAPES = [(64, 16), (70, 33), (37, 37), (9, 1100), (20, 513)]
GRAM, DENSE = 1.0, 2.0


def spectrum(values, m, n, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    return with_values(values, m, n, g).to(dtype)


def route(A, k):
    """Which route every matrix took: the first number of its workspace."""
    saved = torch.ops.kdops.svd_topk(A, k, True, True, False)[3]
    return saved.flatten(1)[:, 0].tolist()


def with_gradient(A, k, cotangents, **options):
    A = A.detach().requires_grad_()
    triple = batched_svd(A, k, **options)
    outputs = [t for t in triple if t is not None]
    (gradient,) = torch.autograd.grad(outputs, A, cotangents[-len(outputs) :])
    return (*(t.detach() for t in outputs), gradient)


def cotangents_for(A, k):
    *batch, m, n = A.shape
    return [torch.randn(*batch, *size, dtype=A.dtype) for size in ((m, k), (k,), (k, n))]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_route(dtype):
    """The Gram matrix serves what it can resolve, the full SVD the rest."""
    r = 32
    steps = torch.linspace(2, 1, r)
    small = torch.where(torch.arange(r) < 3, steps, 1e-3)  # the 4th of 4 is lost in AᵀA
    crossing = torch.where((torch.arange(r) == 4), steps[3], steps)  # 4th = 5th
    inside = torch.where((torch.arange(r) == 2), steps[1], steps)  # 2nd = 3rd, both returned
    cases = [steps, small, crossing, inside, torch.zeros(r)]
    A = torch.stack([spectrum(values.double(), 80, r, dtype) for values in cases])
    assert route(A, 4) == [GRAM, DENSE, DENSE, GRAM, DENSE]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_independent_of_the_batch(shape, dtype):
    """A matrix alone, among others, first or last: the same bits, values and gradient."""
    k = 4
    A = torch.randn(19, *shape, dtype=dtype)
    A[3], A[8] = 0, 1  # these take the other route
    cotangents = cotangents_for(A, k)
    whole = with_gradient(A, k, cotangents)
    order = torch.randperm(19)
    mixed = with_gradient(A[order], k, [c[order] for c in cotangents])
    for x, y in zip(whole, mixed, strict=True):
        assert torch.equal(x[order], y)
    for i in (0, 3, 18):
        alone = with_gradient(A[i : i + 1], k, [c[i : i + 1] for c in cotangents])
        for x, y in zip(whole, alone, strict=True):
            assert torch.equal(x[i : i + 1], y)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(64, 16), (9, 1100)], ids=str)
def test_powers_of_two_pass_through_exactly(shape, dtype):
    """V and U have the same bits at any scale, S and the gradient are exact multiples."""
    k, scale = 4, 2.0 ** (80 if dtype == torch.float32 else 400)
    A = torch.randn(3, *shape, dtype=dtype)
    gU, gS, gVh = cotangents_for(A, k)
    U, S, Vh, gradient = with_gradient(A, k, [gU, gS, gVh])
    for factor in (scale, 1 / scale):
        U2, S2, Vh2, gradient2 = with_gradient(A * factor, k, [gU, gS / factor, gVh])
        for x, y in zip((U, S * factor, Vh), (U2, S2, Vh2), strict=True):
            assert torch.equal(x, y)
        torch.testing.assert_close(gradient2 * factor, gradient)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("k", [1, 3, 4])
def test_gradient_without_u(shape, k):
    """Not asking for U changes no gradient of S and V."""
    A = torch.randn(5, *shape, dtype=torch.float64)
    zero_u, gS, gVh = cotangents_for(A, k)
    with_u = with_gradient(A, k, [zero_u * 0, gS, gVh])
    without = with_gradient(A, k, [zero_u, gS, gVh], compute_u=False)
    for x, y in zip(with_u[1:], without, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)


def test_cluster_across_position_k():
    """s_2 = s_3 with k = 2: the first pair and S are still exact, all of it is finite."""
    values = torch.cat([torch.tensor([3.0, 2.0, 2.0]), torch.linspace(1, 0.5, 13)])
    A = spectrum(values, 40, 16, torch.float64)[None].requires_grad_()
    weights = torch.randn(16, 16, dtype=torch.float64)
    _, S, Vh = batched_svd(A, 2)
    v = Vh[:, :1]
    (gradient,) = torch.autograd.grad((v @ weights @ v.mT).sum() + S[:, 0].sum(), A)
    A = A.detach()
    full = torch.linalg.svd(A, full_matrices=False)
    u, v = full.U[..., :1], full.Vh[:, :1].mT
    resolvent = torch.linalg.pinv(9 * torch.eye(16, dtype=torch.float64) - A.mT @ A, rtol=1e-10)
    x = resolvent @ (weights + weights.mT) @ v
    expected = A @ x @ v.mT + A @ v @ x.mT + u @ v.mT
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(isa):
    """Each agrees with torch, gradient included (the set is chosen once in a process)."""
    code = """
        import torch
        from kdops import batched_svd
        for m, n in [(70, 33), (20, 513), (9, 9)]:
            A = torch.randn(21, m, n, dtype=torch.float64, requires_grad=True)
            U, S, Vh = batched_svd(A, 4)
            exact = torch.linalg.svd(A, full_matrices=False)
            top = (exact.U[..., :4], exact.S[..., :4], exact.Vh[..., :4, :])
            loss = lambda U, S, Vh: (S * (U[..., :9, :] * Vh.mT[..., :9, :]).sum(-2)).sum()
            a, = torch.autograd.grad(loss(U, S, Vh), A)
            b, = torch.autograd.grad(loss(*top), A)
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
    """
    run_python(code, KDOPS_ISA=isa)


def column_by_column(A):
    """The same matrices as they lie in feature maps (B, C, H, W) seen as positions x channels."""
    return A.mT.contiguous().mT


@pytest.mark.parametrize("compute_u", [True, False], ids=["USV", "SV"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matrices_that_lie_column_by_column(shape, dtype, compute_u):
    """Same values, same gradient, and the gradient lies as the matrices do; both routes."""
    k = 4
    A = torch.randn(7, *shape, dtype=dtype)
    A[2] = spectrum(5.0 ** -torch.arange(min(shape), dtype=torch.float64), *shape, dtype)
    A[5] *= 2.0**40
    turned = column_by_column(A)
    assert {GRAM, DENSE} <= set(route(turned, k))
    cotangents = cotangents_for(A, k)
    expected = with_gradient(A, k, cotangents, compute_u=compute_u)
    found = with_gradient(turned, k, cotangents, compute_u=compute_u)
    assert found[-1].stride() == turned.stride()
    tolerance = 1e-9 if dtype == torch.float64 else 2e-3
    for a, b in zip(found, expected, strict=True):
        unit = b.flatten(1).abs().amax(1)
        assert ((a - b).flatten(1).abs().amax(1) <= tolerance * unit).all()


def test_feature_maps_are_not_copied():
    """What the backward keeps of positions x channels is the map itself."""
    maps = torch.randn(4, 8, 6, 6, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        batched_svd(maps.flatten(2).mT, 2, compute_u=False)
    assert maps.data_ptr() in [x.data_ptr() for x in kept]
    assert not [x.shape for x in kept if x.shape == (4, 36, 8) and x.is_contiguous()]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_gradient_lies_as_the_matrices_do(device):
    """What torch.compile plans with, on either device."""
    with FakeTensorMode():
        for A in (torch.empty(3, 12, 7, device=device), torch.empty(3, 7, 12, device=device).mT):
            outputs = torch.ops.kdops.svd_topk(A, 2, True, True, False)
            gA = torch.ops.kdops.svd_topk_backward(*outputs[:3], A, *outputs, False)
            assert gA.stride() == A.stride()


@pytest.mark.parametrize("compute_u", [True, False], ids=["USV", "SV"])
def test_opcheck_column_by_column(compute_u):
    A = column_by_column(torch.randn(3, 12, 7, dtype=torch.float64)).requires_grad_()
    torch.library.opcheck(torch.ops.kdops.svd_topk.default, (A, 2, compute_u, True, False))


@pytest.mark.slow
def test_compiles_column_by_column():
    @torch.compile(fullgraph=True)
    def loss(maps):
        return batched_svd(maps.flatten(2).mT, 2, compute_u=False).Vh.abs().sum()

    maps = torch.randn(4, 8, 6, 6, requires_grad=True)
    (compiled,) = torch.autograd.grad(loss(maps), maps)
    Vh = batched_svd(maps.flatten(2).mT.contiguous(), 2, compute_u=False).Vh
    (plain,) = torch.autograd.grad(Vh.abs().sum(), maps)
    torch.testing.assert_close(compiled, plain, atol=1e-4, rtol=1e-4)
