"""Relation ops on degenerate rows, offsets and scales: what products of rows know nothing of."""

import pytest
import torch
from support.relation_losses import (
    BACKENDS,
    LOSSES,
    RKD,
    check,
    naive,
    native,
    value_and_grad,
)

import kdops
from kdops.testing import relative_error


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("function", RKD)
@pytest.mark.parametrize("backend", BACKENDS)
def test_repeated_rows(backend, function, dtype):
    """Equal in the student, in the teacher, in both; published code reaches gradients of 3e9."""
    student, teacher = torch.randn(20, 30, dtype=dtype), torch.randn(20, 8, dtype=dtype)
    plain = value_and_grad(function, student, teacher)[1].norm()
    student[7], student[9], teacher[9], teacher[13] = student[2], student[4], teacher[4], teacher[5]
    with kdops.backend(backend):
        check(function, student, teacher, 1e-11 if dtype == torch.float64 else 2e-5)
        assert value_and_grad(function, student, teacher)[1].norm() < 3 * plain


@pytest.mark.parametrize("backend", BACKENDS)
def test_collapsed_rows(backend):
    """Their distances count, in both roles and whether or not a gradient is wanted."""
    graded = torch.randn(32, 16) * torch.logspace(0, -12, 32)[:, None]
    clusters = 1e-6 * torch.randn(32, 16)
    clusters[:16] += 1
    others = torch.randn(32, 16)
    for rows in (graded, clusters):
        for student, teacher in ((rows, others), (others, rows)):
            exact = naive(kdops.rkd_distance_loss, student, teacher)
            with kdops.backend(backend):
                watched = kdops.rkd_distance_loss(student.clone().requires_grad_(), teacher)
                plain = kdops.rkd_distance_loss(student, teacher)
            assert relative_error(plain, exact) <= 1e-6
            assert torch.equal(watched.detach(), plain)


@pytest.mark.parametrize("function", RKD)
@pytest.mark.parametrize("backend", BACKENDS)
def test_all_rows_equal(backend, function):
    student, teacher = torch.randn(1, 9).expand(11, 9), torch.randn(11, 5)
    with kdops.backend(backend):
        loss, grad = value_and_grad(function, student.clone(), teacher)
    assert loss.isfinite()
    assert (grad == 0).all()


@native
@pytest.mark.parametrize("distance", [1e-1, 1e-2, 1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("function", RKD)
def test_nearly_equal_rows(function, distance):
    """Float Gram matrices know nothing of such pairs: differences and, for angles, double do."""
    student, teacher = torch.randn(24, 40), torch.randn(24, 40)
    student[3] = student[1] + distance * torch.randn(40)
    check(function, student, teacher, 2e-4)


@pytest.mark.parametrize("function", RKD)
@pytest.mark.parametrize("backend", BACKENDS)
def test_offset_rows(backend, function):
    """Mean 1, deviation 0.01: the Gram expansion of raw rows is wrong by percents."""
    student, teacher = 1 + 0.01 * torch.randn(32, 512), 100 + torch.randn(32, 64)
    with kdops.backend(backend):
        check(function, student, teacher, 5e-5)


@pytest.mark.parametrize("size", [1e-20, 1e20])
@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_scales(backend, function, size):
    student, teacher = torch.randn(13, 7), torch.randn(13, 7)
    with kdops.backend(backend):
        expected = value_and_grad(function, student, teacher)
        loss, grad = value_and_grad(function, student * size, teacher / size)
    assert relative_error(loss, expected[0]) <= 2e-5
    assert relative_error(grad * size, expected[1]) <= 2e-5


@pytest.mark.parametrize("size", [1e-20, 1e20])
def test_pairwise_at_extreme_scales(size):
    x = torch.randn(9, 5)
    for function, unit in ((kdops.pairwise_distance, size), (kdops.pairwise_cosine, 1.0)):
        assert relative_error(function(x * size) / unit, function(x)) <= 2e-5
        scaled = (x * size).requires_grad_()
        (grad,) = torch.autograd.grad(function(scaled).sum(), scaled)
        plain = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(function(plain).sum(), plain)
        assert relative_error(grad * (size / unit), expected) <= 2e-5


@pytest.mark.parametrize("which", ["student", "teacher"])
@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_row(backend, function, which):
    student, teacher = torch.randn(9, 5), torch.randn(9, 5)
    (student if which == "student" else teacher)[4, 2] = float("nan")
    with kdops.backend(backend):
        loss, grad = value_and_grad(function, student, teacher)
    assert loss.isnan()
    assert grad.isnan().any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_row_stays_in_its_row_and_column(backend):
    x = torch.randn(40, 6)
    x[3, 1] = float("nan")
    keep = [i for i in range(40) if i != 3]
    for function in (kdops.pairwise_distance, kdops.pairwise_cosine):
        with kdops.backend(backend):
            out = function(x)
            clean = function(x[keep])
        assert out[3].isnan().all()
        assert out[:, 3].isnan().all()
        assert relative_error(out[keep][:, keep], clean) <= 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_similarity_of_very_short_rows(backend):
    """1/|G_i| of a row so short has no square in float32."""
    student, teacher = torch.randn(20, 12), torch.randn(20, 5)
    student[3] *= 1e-15
    with kdops.backend(backend):
        loss, grad = value_and_grad(kdops.similarity_loss, student, teacher)
        exact = value_and_grad(kdops.similarity_loss, student.double(), teacher.double())
    assert relative_error(loss, exact[0]) <= 2e-5
    assert relative_error(grad[3], exact[1][3]) <= 2e-5
    keep = [i for i in range(20) if i != 3]
    assert relative_error(grad[keep], exact[1][keep]) <= 2e-5


def test_zero_distances_have_zero_gradient():
    x = torch.randn(6, 3, requires_grad=True)
    for y in (x.detach().clone(), None):
        out = kdops.pairwise_distance(x, y)
        (grad,) = torch.autograd.grad(out.diagonal().sum(), x)
        assert (out.diagonal() == 0).all()
        assert (grad == 0).all()


def test_gradient_penalty_through_repeated_rows():
    """The second derivative exists where the first is defined to be zero."""
    student = torch.randn(6, 3, dtype=torch.float64)
    student[4] = student[1]
    student.requires_grad_()
    for function in RKD:
        loss = function(student, torch.randn(6, 3, dtype=torch.float64))
        (grad,) = torch.autograd.grad(loss, student, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), student)
        assert second.isfinite().all()
        assert second.abs().max() > 0


def test_angles_beside_an_outlier():
    """One row in a large batch moves the centre little and the cosines at every other row."""
    x = torch.randn(128, 32)
    x[3] *= 500
    directions = torch.nn.functional.normalize(x.double() - x[:, None].double(), dim=2)
    assert (kdops.pairwise_angle(x) - directions @ directions.mT).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ["clusters", "far"])
def test_second_order_keeps_its_digits(kind):
    """A gradient penalty in float32 where the products of the formula cancel."""
    x, cotangent = torch.randn(16, 5), torch.randn(16, 16)
    x[:8] += 1e3 if kind == "clusters" else 0
    x[3] *= 1e5 if kind == "far" else 1

    def penalty(dtype):
        rows = x.to(dtype).requires_grad_()
        total = (kdops.pairwise_distance(rows) * cotangent.to(dtype)).sum()
        (grad,) = torch.autograd.grad(total, rows, create_graph=True)
        return torch.autograd.grad(grad.pow(3).sum(), rows)[0]

    assert relative_error(penalty(torch.float32), penalty(torch.float64)) <= 2e-5
