"""What is special to the RBF ops: accuracy of close values, cancellation, huge values."""

import math

import mpmath
import pytest
import torch
from support.new_process import run_python

import kdops
from kdops._library import missing
from kdops.ops.rbf import gradient, reference
from kdops.testing import assert_close, relative_error

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
native = pytest.mark.skipif(missing is not None, reason=str(missing))


def levels(batch, front, back, k, size, near, dtype=torch.float64):
    """Student and teacher vectors of entries about `size`, the teacher `near` * size away."""
    students = [size * torch.randn(batch, d, k, dtype=dtype) for d in (front, back)]
    teachers = [s + near * size * torch.randn_like(s) for s in students]
    return students[0].requires_grad_(), students[1].requires_grad_(), *teachers


def exact_svd_rbf(front_s, back_s, front_t, back_t, beta):
    """Loss and gradient of the fronts of one small problem in 60 digits."""
    mpmath.mp.dps = 60
    loss = mpmath.mpf(0)
    grads = [mpmath.mpf(0)] * front_s.numel()
    for n in range(front_s.numel()):
        for m in range(back_s.numel()):
            a = mpmath.mpf(back_s[m].item()) - mpmath.mpf(front_s[n].item())
            t = mpmath.mpf(back_t[m].item()) - mpmath.mpf(front_t[n].item())
            k_s, k_t = mpmath.exp(-a * a / beta), mpmath.exp(-t * t / beta)
            loss += (k_s - k_t) ** 2
            grads[n] += 4 / mpmath.mpf(beta) * (k_s - k_t) * k_s * a
    return float(loss), torch.tensor([float(g) for g in grads], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("near", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("size", [0.05, 0.5, 2.0, 10.0])
def test_svd_rbf_loss_against_sixty_digits(size, near, dtype):
    """Values and gradients keep their digits however close student and teacher are."""
    sf, sb, tf, tb = levels(1, 9, 13, 1, size, near, dtype)
    loss = kdops.svd_rbf_loss(sf, sb, tf, tb, beta=8.0, variant="sum")
    (grad,) = torch.autograd.grad(loss, sf)
    vectors = (t.detach().double().flatten() for t in (sf, sb, tf, tb))
    expected, expected_grad = exact_svd_rbf(*vectors, 8.0)
    limit = 50 * torch.finfo(dtype).eps
    assert abs(loss.item() - expected) <= limit * expected
    assert relative_error(grad.flatten(), expected_grad) <= limit


def test_svd_rbf_loss_survives_a_teacher_that_is_the_student_shifted():
    """A common shift changes no kernel: the low-rank terms cancel and the pairs must be taken."""
    sf, sb, _, _ = levels(2, 40, 50, 3, 0.3, 1.0)
    shift = 0.125
    tf, tb = sf.detach() + shift, sb.detach() + shift
    tb[0, 0, 0] += 1e-2  # the only true difference
    for dtype in (torch.float64, torch.float32):
        inputs = [t.detach().to(dtype) for t in (sf, sb, tf, tb)]
        loss = kdops.svd_rbf_loss(*inputs)
        expected = reference.svd_rbf_loss(*(t.double() for t in inputs), 8.0, 0)
        assert_close(loss, expected, dtype)


@pytest.mark.parametrize("sizes", [(7, 9), (64, 128)], ids=str)  # pair by pair, and low rank
@pytest.mark.parametrize(("student", "teacher"), [(1e4, 1e4), (1e4, 0), (0, 1e4), (1e4, -1e3)])
def test_svd_rbf_loss_pays_nothing_for_an_offset_common_to_front_and_back(sizes, student, teacher):
    """Exact differences are taken before anything is rounded: it was 1e-3 off."""
    sf, sb, tf, tb = (t.detach().float() for t in levels(2, *sizes, 2, 0.3, 1.0))
    inputs = [(sf + student).requires_grad_(), (sb + student).requires_grad_()]
    teachers = [tf + teacher, tb + teacher]
    loss = kdops.svd_rbf_loss(*inputs, *teachers)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    exact = reference.svd_rbf_loss(*wide, *(t.double() for t in teachers), 8.0, 0)
    assert relative_error(loss, exact) < 5e-7
    pulls = zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(exact, wide), strict=True)
    assert all(relative_error(a, e) < 2e-6 for a, e in pulls)


def test_svd_rbf_loss_of_equal_student_and_teacher_is_zero():
    sf, sb, _, _ = levels(2, 40, 50, 3, 0.3, 1.0)
    loss = kdops.svd_rbf_loss(sf, sb, sf.detach().clone(), sb.detach().clone())
    grads = torch.autograd.grad(loss, (sf, sb))
    assert loss.item() == 0
    assert all((g == 0).all() for g in grads)


def test_svd_rbf_loss_variants():
    inputs = levels(3, 5, 6, 4, 0.5, 1.0)
    total = kdops.svd_rbf_loss(*inputs, variant="sum")
    assert_close(kdops.svd_rbf_loss(*inputs, variant="mean"), total / 3, torch.float64)
    paper = kdops.svd_rbf_loss(*inputs, variant="paper")
    assert_close(paper, total * 0.5 * math.sqrt(4), torch.float64)
    with pytest.raises(ValueError, match="variant to be one of 'mean', 'sum', 'paper'"):
        kdops.svd_rbf_loss(*inputs, variant="max")
    for beta in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="beta > 0"):
            kdops.svd_rbf_loss(*inputs, beta=beta)


def test_nan_sample_leaves_the_other_samples_gradients_alone():
    sf, sb, tf, tb = levels(3, 20, 30, 2, 0.3, 1.0)
    clean = torch.autograd.grad(kdops.svd_rbf_loss(sf, sb, tf, tb), (sf, sb))
    with torch.no_grad():
        sf[1, 4, 0] = math.nan
    loss = kdops.svd_rbf_loss(sf, sb, tf, tb)
    dirty = torch.autograd.grad(loss, (sf, sb))
    assert loss.isnan()
    for c, d in zip(clean, dirty, strict=True):
        assert torch.equal(c[[0, 2]], d[[0, 2]])
        assert torch.equal(c[1, :, 1], d[1, :, 1])


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_nan_row_stays_in_its_row_and_column(backend):
    x = torch.randn(70, 5)
    x[3] = math.nan
    x[9, 2] = math.inf
    with kdops.backend(backend):
        k = kdops.rbf_affinity(x)
        assert kdops.rbf_affinity_loss(x, torch.randn(70, 5)).isnan()
    bad = torch.zeros(70, dtype=torch.bool)
    bad[3] = True
    assert k[bad].isnan().all()
    assert k[:, bad].isnan().all()
    bad[9] = True
    assert k[~bad][:, ~bad].isfinite().all()


@pytest.mark.parametrize("scale", [1e-20, 1e20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_extreme_scales_are_finite(backend, dtype, scale):
    x = (scale * torch.randn(40, 6, dtype=dtype)).requires_grad_()
    y = torch.randn(40, 6, dtype=dtype)
    vectors = [(scale * torch.randn(2, 7, 3, dtype=dtype)).requires_grad_() for _ in range(4)]
    with kdops.backend(backend):
        results = (kdops.rbf_affinity(x), kdops.rbf_affinity(x, y), kdops.rbf_affinity_loss(x, y))
        loss = kdops.svd_rbf_loss(*vectors)
    grads = torch.autograd.grad([r.sum() for r in results], x)
    grads += torch.autograd.grad(loss, vectors[:2])
    assert all(t.isfinite().all() for t in (*results, loss, *grads))
    expected = torch.eye(40) if scale > 1 else torch.ones(40, 40)
    assert torch.equal(results[0].detach().float(), expected)


def test_affinity_of_close_rows_far_from_the_centre():
    """Two tight clusters: the expanded form alone would lose five digits inside a cluster."""
    centres = 100 * torch.randn(2, 64, dtype=torch.float64)
    x = centres.repeat(20, 1) + 0.01 * torch.randn(40, 64, dtype=torch.float64)
    expected = torch.exp(-30 * (x.float().double()[:, None] - x.float().double()).square().sum(-1))
    k = kdops.rbf_affinity(x.float(), gamma=30.0)
    assert relative_error(k, expected) < 1e-5
    assert torch.equal(k.diagonal(), torch.ones(40))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_largest_bandwidths(backend):
    """Equal rows have affinity one, others zero; the gradient is finite."""
    x = torch.randn(20, 3)
    x[4] = x[9]
    x.requires_grad_()
    with kdops.backend(backend):
        k = kdops.rbf_affinity(x, gamma=8e37)
        loss = kdops.rbf_affinity_loss(x, torch.randn(20, 3), gamma=8e37)
    expected = torch.eye(20)
    expected[4, 9] = expected[9, 4] = 1
    assert torch.equal(k.detach(), expected)
    assert all(g.isfinite().all() for g in torch.autograd.grad(k.sum() + loss, x))


def test_reference_under_autocast():
    x, y = torch.randn(20, 30), torch.randn(20, 30)
    for function in (kdops.rbf_affinity, kdops.rbf_affinity_loss):
        with kdops.backend("reference"):
            expected = function(x, y, gamma=0.1)
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(function(x, y, gamma=0.1), expected)


def test_offset_costs_no_digits():
    x = torch.randn(50, 32)
    moved = kdops.rbf_affinity(x.double() + 1e4, gamma=0.02)
    assert_close(moved, kdops.rbf_affinity(x.double(), gamma=0.02), torch.float64)


def test_duplicated_rows_have_unit_affinity_and_no_pull_on_each_other():
    x = torch.randn(6, 4)
    x[1] = x[0]
    x.requires_grad_()
    k = kdops.rbf_affinity(x)
    assert k[0, 1] == 1
    (g,) = torch.autograd.grad(k[0, 1], x)
    assert g.abs().max() < 1e-6


def test_gauss_newton_curvature_where_student_is_teacher():
    """At zero loss the Hessian is 2 J'J / N², not zero: expm1 must not break second order."""
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(x)

    def curvature(loss):
        (g,) = torch.autograd.grad(loss, x, create_graph=True)
        return torch.autograd.grad(g, x, direction)[0]

    def naive(s, t):
        kernels = [torch.exp(-0.3 * (v[:, None] - v).square().sum(-1)) for v in (s, t)]
        return (kernels[0] - kernels[1]).square().mean()

    actual = curvature(kdops.rbf_affinity_loss(x, x.detach(), gamma=0.3))
    assert_close(actual, curvature(naive(x, x.detach())), torch.float64)
    assert actual.abs().max() > 1e-3


def test_formulas_agree_with_autograd_of_the_references():
    x, y = (torch.randn(2, n, 3, dtype=torch.float64, requires_grad=True) for n in (5, 4))
    gamma = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(2, 5, 4, dtype=torch.float64)
    k = reference.rbf_affinity(x, y, gamma[:, None, None])
    expected = torch.autograd.grad(k, (x, y, gamma), cotangent)
    assert_close(
        gradient.rbf_affinity_backward(cotangent, x, y, gamma, 0.0), expected, torch.float64
    )


def test_chunked_reference_agrees_with_one_chunk(monkeypatch):
    s, t = torch.randn(30, 4, dtype=torch.float64, requires_grad=True), torch.randn(30, 4).double()
    inputs = levels(3, 9, 11, 2, 0.5, 1.0)

    def run():
        losses = (reference.rbf_affinity_loss(s, t, 0.4), reference.svd_rbf_loss(*inputs, 8.0, 1))
        return [*losses, *torch.autograd.grad(sum(losses), (s, *inputs[:2]))]

    whole = run()
    monkeypatch.setattr("kdops._recompute.CHUNK", 64)
    assert_close(run(), whole, torch.float64)


@pytest.mark.slow
@native
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_every_instruction_set(isa):
    """The kernels of each instruction set against the float64 references, odd sizes."""
    code = """
    import torch, kdops
    from kdops.testing import assert_close
    torch.manual_seed(0)
    def check(function, *inputs):
        for dtype in (torch.float64, torch.float32):
            results = []
            for name, kind in (("native", dtype), ("reference", torch.float64)):
                given = [t.to(dtype).to(kind).requires_grad_() for t in inputs]
                with kdops.backend(name):
                    out = function(*given)
                results.append((out, torch.autograd.grad(out.square().sum(), given)))
            assert_close(results[0], results[1], dtype, factor=4)
    x, y = torch.randn(2, 77, 19).double(), torch.randn(2, 45, 19).double()
    check(lambda a: kdops.rbf_affinity(a, gamma=0.03), x)
    check(lambda a, b: kdops.rbf_affinity(a, b, gamma=0.03), x, y)
    check(lambda a: kdops.rbf_affinity_loss(a, y[0].to(a), gamma=0.03), x[0, :45])
    for size in (0.1, 1.0, 6.0):
        v = [size * torch.randn(2, d, 3).double() for d in (37, 21, 37, 21)]
        check(lambda f, b: kdops.svd_rbf_loss(f, b, v[2].to(f), v[3].to(f)), *v[:2])
    print(kdops.build_info()["active_instruction_set"])
    """
    assert run_python(code, KDOPS_ISA=isa).strip() in INSTRUCTION_SETS
