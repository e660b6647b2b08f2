"""What every distiller promises: finite gradients, half inputs, learning, state_dict, messages."""

from contextlib import nullcontext

import pytest
import torch
from support.distiller_cases import CASES, SHAPES, Case, maps

import kdops
import kdops.distillers as kd

all_methods = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


def build(case: Case, batch: int = 4, dtype: torch.dtype = torch.float64):
    torch.manual_seed(0)
    student, teacher = case.features(batch, 0, dtype), case.features(batch, 50, dtype)
    return case.build(student, teacher), student, teacher


def test_a_case_for_every_method():
    missing = set(kd.__all__) - {case.name for case in CASES}
    assert not missing


@all_methods
def test_scalar_and_no_gradient_for_the_teacher(case):
    method, student, teacher = build(case)
    loss = method(student, teacher)
    assert loss.shape == ()
    assert loss.dtype == torch.float64
    loss.backward()
    assert all(s.grad is not None and s.grad.abs().max() > 0 for s in student)
    assert all(t.grad is None for t in teacher)


DEGENERATE = {
    "zero sample": lambda x: torch.cat([torch.zeros_like(x[:1]), x[1:]]),
    "all zero": lambda x: 0 * x,
    "constant map": lambda x: (
        x.flatten(2).mean(2)[..., None, None].expand_as(x)
        if x.ndim == 4
        else x.mean(1, keepdim=True).expand_as(x)
    ),
    "dead channels": lambda x: torch.cat([x[:, :4], torch.zeros_like(x[:, 4:])], 1),
    "duplicate channels": lambda x: x[:, torch.arange(x.shape[1]) // 2],
    "duplicate samples": lambda x: x[torch.zeros(x.shape[0], dtype=torch.long)],
    "tiny": lambda x: x * 1e-20,
    "large": lambda x: x * 1e4,
}


@all_methods
@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
def test_degenerate_inputs_are_finite(case, kind, side):
    method, student, teacher = build(case, dtype=torch.float32)
    method.float()
    change = DEGENERATE[kind]
    s = [change(x) if side != "teacher" else x for x in student]
    t = [change(x) if side != "student" else x for x in teacher]
    loss = method(s, t)
    assert torch.isfinite(loss)
    used = [p for p in [*student, *method.parameters()] if p.requires_grad]
    for g in torch.autograd.grad(loss, used, allow_unused=True):
        assert g is None or torch.isfinite(g).all()


@all_methods
def test_half_inputs_give_an_fp32_loss(case):
    method, student, teacher = build(case, dtype=torch.float32)
    method.float()
    exact = method(student, teacher)
    for half in (torch.bfloat16, torch.float16):
        s = [x.detach().to(half).requires_grad_() for x in student]
        loss = method(s, [x.to(half) for x in teacher])
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact, rtol=0.1, atol=0.02)
        loss.backward()
        assert all(x.grad.dtype == half and torch.isfinite(x.grad).all() for x in s)


@all_methods
def test_autocast(case):
    method, student, teacher = build(case, dtype=torch.float32)
    method.float()
    exact = method(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.1, atol=0.02)


@all_methods
def test_the_reference_backend_agrees(case):
    """Loss, and the gradients of the student's features and of the method's own parameters."""
    results = []
    for backend in ("native", "reference"):
        method, student, teacher = build(case)
        watched = [*student, *(p for p in method.parameters() if p.requires_grad)]
        with kdops.backend("reference") if backend == "reference" else nullcontext():
            loss = method(student, teacher)
            slopes = torch.autograd.grad(loss, watched, allow_unused=True)
        results.append([loss, *(g for g in slopes if g is not None)])
    for ours, plain in zip(*results, strict=True):
        largest = float(plain.detach().abs().max())
        torch.testing.assert_close(ours, plain, rtol=1e-7, atol=1e-9 * largest)


@all_methods
def test_a_step_lowers_the_loss(case):
    """Gradient descent on the student's features and the method's own parameters."""
    method, student, teacher = build(case, batch=8)
    trained = [*student, *(p for p in method.parameters() if p.requires_grad)]
    first = method(student, teacher)
    slopes = torch.autograd.grad(first, trained, allow_unused=True)
    assert not any(g.requires_grad for g in slopes if g is not None)
    square = sum(float(g.square().sum()) for g in slopes if g is not None)
    assert square > 0
    step = 0.02 * first.detach().abs() / square
    with torch.no_grad():
        for p, g in zip(trained, slopes, strict=True):
            if g is not None:
                p -= step * g
    assert method(student, teacher) < first


@all_methods
def test_state_dict_round_trip(case):
    method, student, teacher = build(case)
    other, _, _ = build(case)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1.0)
    other.load_state_dict(method.state_dict())
    torch.testing.assert_close(other(student, teacher), method(student, teacher))


def test_levels_that_do_not_pair():
    with pytest.raises(ValueError, match="student has 3 levels and the teacher 2"):
        kd.VID([8, 12, 12], [8, 12, 12])(maps(), maps()[:2])
    with pytest.raises(ValueError, match=r"VID: level 1: the batches differ.*\[4, 12, 4, 4\]"):
        kd.VID([8, 12], [8, 12])(maps()[:2], [maps()[0], maps(5)[1]])
    with pytest.raises(ValueError, match=r"level 0: the teacher must be a floating point"):
        kd.VID([8], [8])(maps()[:1], [torch.zeros(4, 8, dtype=torch.long)])


def test_weights_of_levels():
    s, t = maps(), maps(seed=9)
    plain = kd.FitNet.from_sample(s, t, batch_norm=False)
    single = [
        m.from_sample([a], [b], batch_norm=False)
        for m, a, b in zip([kd.FitNet] * 3, s, t, strict=True)
    ]
    for one, regressor in zip(single, plain.regressors, strict=True):
        one.regressors[0].load_state_dict(regressor.state_dict())
    parts = [one(a, b) for one, a, b in zip(single, s, t, strict=True)]
    torch.testing.assert_close(plain(s, t), sum(parts))
    plain.weights = (1.0, 0.5, 2.0)
    torch.testing.assert_close(plain(s, t), parts[0] + 0.5 * parts[1] + 2 * parts[2])
    plain.weights = (1.0,)
    with pytest.raises(ValueError, match="FitNet: 1 weights for 3 terms"):
        plain(s, t)


@pytest.mark.parametrize("name", ["FactorTransfer", "Overhaul"])
def test_preparation_is_asked_for(name):
    s, t = maps(), maps(seed=9)
    method = getattr(kd, name).from_sample(s, t)
    with pytest.raises(RuntimeError, match=rf"{name}: the preparatory phase was not run.*prepare"):
        method(s, t)
    method.prepare([t])
    loss = method(s, t)
    fresh = getattr(kd, name).from_sample(s, t)
    fresh.load_state_dict(method.state_dict())
    torch.testing.assert_close(fresh(s, t), loss)


def test_channels_of_the_cases_differ_from_the_batch():
    """A guard for the tests above: no two sizes coincide, so a transposed formula fails."""
    assert all(4 not in shape[:1] for shape in SHAPES)
