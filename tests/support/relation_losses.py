"""The relational losses and, independent of ours, their definition."""

import pytest
import torch

import kdops
from kdops._library import missing
from kdops.testing import relative_error

RKD = (kdops.rkd_distance_loss, kdops.rkd_angle_loss)
LOSSES = (*RKD, kdops.similarity_loss)
BACKENDS = ("native", "reference")
native = pytest.mark.skipif(missing is not None, reason=str(missing))


def naive(function, student, teacher):
    """The RKD losses in float64 over differences of rows, N x N x D stored: independent of ours."""

    def unit_and_norm(x):
        differences = x[None] - x[:, None]
        squares = differences.square().sum(-1, keepdim=True)
        zero = squares == 0
        norm = torch.where(zero, 1.0, squares).sqrt()
        return torch.where(zero, 0.0, differences / norm), torch.where(zero, 0.0, norm)[..., 0]

    def relations(x):
        unit, norm = unit_and_norm(x)
        if function is kdops.rkd_angle_loss:
            return torch.einsum("ijd,ikd->ijk", unit, unit)
        return norm / norm[norm > 0].mean()

    return torch.nn.functional.smooth_l1_loss(
        relations(student.double()), relations(teacher.double())
    )


def value_and_grad(function, student, teacher):
    student = student.detach().requires_grad_()
    loss = function(student, teacher)
    return loss.detach(), torch.autograd.grad(loss, student)[0]


def check(function, student, teacher, limit):
    loss, grad = value_and_grad(function, student, teacher)
    exact, exact_grad = value_and_grad(
        lambda s, t: naive(function, s, t), student.double(), teacher.double()
    )
    assert relative_error(loss, exact) <= limit
    assert relative_error(grad, exact_grad) <= limit
