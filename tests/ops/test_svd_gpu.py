"""The SVD kernels on a GPU: every route of csrc/svd/*_cuda.cu, judged as on the CPU.

The contract runs there too (pytest tests/test_contract.py --device cuda). To try the tests
themselves where there is no GPU, take the mark off and set DEVICE to "cpu".
"""

import pytest
import torch
from support.cuda_graphs import captured, on_cpu
from support.svd_inputs import (
    difficult,
    errors_of_full,
    errors_of_topk,
    failures,
    gate,
    gauge_invariant_loss,
    gradients_of,
    orthonormality,
    relative,
    stacked,
    top_of_small_matrices,
    with_values,
)

import kdops
from kdops import batched_eigh, batched_svd, batched_svdvals

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("native_on_a_gpu")]

DTYPES = [torch.float32, torch.float64]
# Lanes of a warp share a matrix: 8 (float32), 16, 32 (float32; a block in float64), at and inside
# the size of the class. Then a block per matrix: square (128 leaves shared memory), tall and wide.
SMALL = [(1, 1), (3, 5), (8, 8), (9, 13), (16, 2), (16, 16), (17, 30), (32, 32)]
BLOCK = [(33, 33), (64, 64), (128, 128), (256, 32), (1024, 16), (300, 65), (16, 64), (49, 512)]
# Factors and Gram matrix in shared memory or outside it, one row of blocks or many, tall and wide;
# then the kernels for a small side above 128.
TOPK = [(9, 9), (1024, 16), (1024, 64), (64, 256), (49, 512), (128, 128), (4096, 128)]
TOPK += [(150, 129), (133, 400)]
BOTH = [*((shape, None) for shape in (*SMALL[1:], *BLOCK)), *((shape, 2) for shape in TOPK)]


# ---- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SMALL, *BLOCK], ids=str)
def test_accuracy(shape, dtype):
    matrices = difficult(dtype, *shape)
    A = stacked(matrices)
    bound = gate(dtype, *shape)
    whole = on_cpu(batched_svd(A.to(DEVICE)))
    assert not failures(matrices, errors_of_full(A, *whole), bound)
    largest = whole[1][:, :1].clamp_min(torch.finfo(dtype).tiny)
    without_u = batched_svd(A.to(DEVICE), compute_u=False)
    assert without_u.U is None
    assert orthonormality(without_u.Vh.cpu().mT).max() <= bound
    for S in (without_u.S, batched_svdvals(A.to(DEVICE))):
        assert ((S.cpu() - whole[1]).abs() / largest).max() <= 2 * bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [1, 4, 16])
@pytest.mark.parametrize("shape", TOPK, ids=str)
def test_accuracy_topk(shape, k, dtype):
    if 2 * k >= min(shape):
        pytest.skip("served by the full decomposition")
    matrices = difficult(dtype, *shape)
    A = stacked(matrices)
    errors = errors_of_topk(A, *on_cpu(batched_svd(A.to(DEVICE), k)))
    assert not failures(matrices, errors, gate(dtype, *shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [1, 5, 8, 16, 32, 33, 64, 128])
def test_accuracy_eigh(n, dtype):
    A = stacked(difficult(dtype, n, n))[:-2]  # without the huge and the tiny one
    A = A + A.mT
    w, Q = (x.cpu().double() for x in batched_eigh(A.to(DEVICE)))
    exact = torch.linalg.eigvalsh(A.double())
    largest = exact.abs().amax(-1).clamp_min(1e-300)
    residual = torch.linalg.matrix_norm(A.double() - Q * w.unsqueeze(-2) @ Q.mT)
    bound = gate(dtype, n, n)
    assert (residual <= bound * torch.linalg.matrix_norm(A.double())).all()
    assert ((w - exact).abs().amax(-1) <= bound * largest).all()
    assert orthonormality(Q).max() <= bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "k"), BOTH, ids=str)
def test_signs_are_those_of_the_cpu(shape, k, dtype):
    g = torch.Generator().manual_seed(3)
    values = 1 + torch.arange(min(shape), 0, -1) / 4
    A = torch.stack([with_values(values, *shape, g) for _ in range(9)]).to(dtype)
    (U, _, Vh), (expected_u, _, expected_vh) = (
        on_cpu(batched_svd(A.to(DEVICE), k)),
        batched_svd(A, k),
    )
    assert (Vh * expected_vh).sum(-1).min() > 0.99
    assert (U * expected_u).sum(-2).min() > 0.99


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_and_strides(dtype):
    A = torch.randn(64, 5, 40, dtype=dtype).movedim(0, -1)  # (5, 40, 64), transposed
    for k in (None, 2):
        expected = batched_svd(A.float(), k).S
        actual = batched_svd(A.to(DEVICE), k).S
        assert actual.dtype == dtype
        assert (actual.cpu().float() - expected).abs().max() <= 1e-2 * expected.max()


# ---- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"compute_u": False}, {"degenerate": "lorentz"}], ids=str)
@pytest.mark.parametrize(("shape", "k"), BOTH, ids=str)
def test_gradients(shape, k, options, dtype):
    """Against the float64 reference on the CPU, through U, S and V together and one by one."""
    g = torch.Generator().manual_seed(7)
    values = 1 + torch.arange(min(shape), 0, -1) / 4
    A = torch.stack([with_values(values, *shape, g) for _ in range(3)])
    parts = ["SV", "V", "S"] if options.get("compute_u") is False else ["USV", "SV", "V", "U"]
    loss = gauge_invariant_loss(shape, min(k or 5, *shape))
    with kdops.backend("reference"):
        expected = gradients_of(lambda A: batched_svd(A, k, **options), A, loss, parts)
    actual = gradients_of(lambda A: batched_svd(A, k, **options), A.to(DEVICE, dtype), loss, parts)
    for part, a, e in zip(parts, actual, expected, strict=True):
        assert relative(a.cpu().double(), e) <= 4 * gate(dtype, *shape), part


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", TOPK, ids=str)
def test_gradients_of_a_tail(shape, dtype):
    """s_3 = s_1 / 100, which a Gram matrix loses: exact to rounding over the smallest gap."""
    g = torch.Generator().manual_seed(7)
    values = torch.full((min(shape),), 0.002, dtype=torch.float64)
    values[:3] = torch.tensor([1.0, 0.1, 0.01])
    A = torch.stack([with_values(values, *shape, g) for _ in range(3)])
    loss, parts = gauge_invariant_loss(shape, 3), ["USV", "SV", "V", "U"]
    with kdops.backend("reference"):
        expected = gradients_of(lambda A: batched_svd(A, 3), A, loss, parts)
    actual = gradients_of(lambda A: batched_svd(A, 3), A.to(DEVICE, dtype), loss, parts)
    for part, a, e in zip(parts, actual, expected, strict=True):
        assert relative(a.cpu().double(), e) <= gate(dtype, *shape) / 0.008, part


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("degenerate", ["mask", "lorentz"])
@pytest.mark.parametrize(("shape", "k"), [((9, 9), None), ((64, 64), None), ((256, 32), 4)])
def test_gradients_of_difficult_matrices_are_finite(shape, k, degenerate, dtype):
    matrices = difficult(dtype, *shape)
    A = stacked(matrices).to(DEVICE).requires_grad_()
    outputs = tuple(batched_svd(A, k, degenerate=degenerate))
    (gA,) = torch.autograd.grad(outputs, A, [torch.randn_like(t) for t in outputs])
    finite = gA.isfinite().all(-1).all(-1).tolist()
    assert all(finite), [n for n, ok in zip(matrices, finite, strict=True) if not ok]


@pytest.mark.parametrize("shape", [(40, 30), (150, 129), (133, 200)], ids=str)
def test_vectors_of_small_matrices(shape):
    top_of_small_matrices(shape, DEVICE)


# ---- the order of memory ------------------------------------------------------------------------


@pytest.mark.parametrize("compute_u", [True, False], ids=["USV", "SV"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "k"), BOTH, ids=str)
def test_matrices_that_lie_column_by_column(shape, k, dtype, compute_u):
    """The same triples and gradient; that of the top k lies as the matrices do. Both routes."""
    g = torch.Generator().manual_seed(7)
    places = torch.arange(min(shape), dtype=torch.float64)
    spectra = [1 + places.flip(0) / 4, 0.01**places]
    A = torch.stack([with_values(values, *shape, g) for values in spectra]).to(DEVICE, dtype)
    loss, results = gauge_invariant_loss(shape, 2), []
    for x in (A, A.mT.contiguous().mT):
        leaf = x.detach().requires_grad_()
        outputs = batched_svd(leaf, k, compute_u=compute_u)
        kept = [t.detach() for t in outputs if t is not None]
        (gA,) = torch.autograd.grad(loss(*outputs, "SV"), leaf)
        assert k is None or gA.stride() == x.stride()
        results.append([*kept, gA])
    for found, expected in zip(*results, strict=True):
        unit = expected.flatten(1).abs().amax(1)
        error = (found - expected).flatten(1).abs().amax(1)
        assert (error <= (1e-8 if dtype == torch.float64 else 1e-2) * unit).all()


def test_feature_maps_are_not_copied():
    """Positions x channels: forward and backward together need less memory than two more maps."""
    if DEVICE != "cuda":
        pytest.skip("counts the memory of the GPU")
    maps = torch.randn(128, 16, 32, 32, device=DEVICE, requires_grad=True)

    def step():
        Vh = batched_svd(maps.flatten(2).mT, 4, compute_u=False).Vh
        (gradient,) = torch.autograd.grad(Vh, maps, Vh)
        assert gradient.is_contiguous()

    step()  # what a first call prepares
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    extra = torch.cuda.max_memory_allocated() - before
    assert extra < 2 * maps.numel() * maps.element_size()  # its gradient, and what is saved


@pytest.mark.parametrize("compute_u", [True, False], ids=["USV", "SV"])
def test_opcheck_column_by_column(compute_u):
    A = torch.randn(3, 7, 12, dtype=torch.float64, device=DEVICE).mT.requires_grad_()
    torch.library.opcheck(torch.ops.kdops.svd_topk.default, (A, 2, compute_u, True, False))


# ---- isolation and repeatability ----------------------------------------------------------------


CALLS = {
    "full": (lambda A: batched_svd(A), [(8, 8), (16, 16), (32, 32), (64, 64), (256, 32), (16, 64)]),
    "top 2": (lambda A: batched_svd(A, 2), [(9, 9), (1024, 16), (49, 512), (128, 128)]),
    "values": (lambda A: (batched_svdvals(A),), [(8, 8), (32, 32), (64, 16)]),
    "eigh": (lambda A: batched_eigh(A), [(8, 8), (32, 32), (64, 64)]),
}
ROUTES = [(name, shape) for name, (_, shapes) in CALLS.items() for shape in shapes]


def step(name, A):
    """Results and gradient for fixed random cotangents, on the device of A."""
    A = A.detach().requires_grad_()
    outputs = CALLS[name][0](A)
    ramps = [torch.linspace(-1, 2, t.numel(), dtype=t.dtype, device=t.device) for t in outputs]
    cotangents = [ramp.view_as(t) for ramp, t in zip(ramps, outputs, strict=True)]
    return (*(t.detach() for t in outputs), *torch.autograd.grad(outputs, A, cotangents))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "shape"), ROUTES, ids=str)
def test_one_bad_matrix_spoils_itself_alone(name, shape, dtype):
    """And the others keep their bits, which says too that a run repeats another."""
    good = torch.randn(21, *shape, dtype=dtype, device=DEVICE)
    bad = good.clone()
    bad[5, -1, 0] = float("nan")  # below the diagonal: eigh reads it
    others = torch.arange(21) != 5
    for x, y in zip(on_cpu(step(name, good)), on_cpu(step(name, bad)), strict=True):
        assert torch.equal(x[others], y[others])
        assert y[5].isnan().all()


@pytest.mark.parametrize("shape", [(49, 60), (150, 129)], ids=str)
def test_second_order_of_the_largest(shape):
    """Above 128 the contract's matrices have too many entries for it."""
    values = [9.0, 6.0, *torch.linspace(3, 1, min(shape) - 2).tolist()]
    A = with_values(values, *shape, torch.Generator().manual_seed(3))
    direction, loss = torch.randn_like(A), gauge_invariant_loss(shape, 2)

    def second(device):
        X = A.to(device).requires_grad_()
        (gA,) = torch.autograd.grad(loss(*batched_svd(X, 2), "USV"), X, create_graph=True)
        return torch.autograd.grad((gA * direction.to(device)).sum(), X)[0].cpu()

    assert relative(second(DEVICE), second("cpu")) <= 1e-8


# ---- no host synchronisation --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "shape"), ROUTES, ids=str)
def test_forward_and_backward_in_a_cuda_graph(name, shape, dtype):
    """Captured without a synchronisation, replayed on numbers that take other routes too."""
    if DEVICE != "cuda":
        pytest.skip("there are no graphs on the CPU")
    A = torch.randn(5, *shape, dtype=dtype, device=DEVICE)
    graph, results = captured(lambda: step(name, A))
    A.copy_(torch.randn(5, *shape, dtype=dtype))
    A[1], A[3] = 0, 1
    graph.replay()
    for x, y in zip(on_cpu(results), on_cpu(step(name, A)), strict=True):
        torch.testing.assert_close(x, y)
