"""The first derivatives of the relation ops as pure, differentiable functions of tensors.

All but cosines and angles depend on the rows through squared distances D_ij = |x_i - y_j|² or
through a Gram matrix. With W = dL/dD,

    dL/dx_i = 2 Σ_j W_ij (x_i - y_j),   dL/dy_j = 2 Σ_i W_ij (y_j - x_i),

one matrix product each (for y = x: one product with the Laplacian of W + Wᵀ), or, as here, sums of
differences (to_rows). What remains per op is W, an elementwise formula. The fused kernels compute
these expressions; second derivatives are taken through these functions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._distances import squared_distances, to_rows
from kdops._precision import in_double
from kdops._unit_rows import power_of_two_scale, safe_root, to_unit_rows, unit_rows
from kdops.ops.relation.reference import (
    cosines_at,
    differences_at,
    mean_scaled_distances,
    over_anchors,
    row_normalised_gram,
    scaled_teacher,
    widest,
)


@in_double
def rkd_distance_gradient(student: Tensor, teacher: Tensor) -> Tensor:
    """dL/dstudent of rkd_distance_loss.

    With ψ = d/μ, h = clamp(ψ_S - ψ_T, -1, 1), μ the mean of the n distances that are not zero:
    dL/dd_ij = (h_ij - Σ hψ / n) / (μ N²), the second term being the gradient through μ, and
    W_ij = dL/dd_ij / (2 d_ij), zero where d_ij = 0.
    """
    scale = power_of_two_scale(student)
    rows = student * scale
    distances, inverses = safe_root(squared_distances(rows, rows))
    count = (distances != 0).sum().clamp(min=1)
    inverse_mean = safe_root((distances.sum() / count).square())[1]
    ratio = distances * inverse_mean
    slope = (ratio - mean_scaled_distances(teacher.detach())).clamp(-1, 1)
    through_mean = (slope * ratio).sum() / count
    weights = (slope - through_mean) * inverses * inverse_mean / (2 * max(ratio.numel(), 1))
    return 2 * scale * to_rows(weights, rows, rows)


def pulled_at(slope: Tensor, x: Tensor, first: int, last: int) -> Tensor:
    """(N, D): what anchors first <= i < last add to dL/dx; slope = dL/dcos, symmetric in (j, k).

    With u_ij = (x_j - x_i) / d_ij and cos_ijk = <u_ij, u_ik> each u_ij has the cotangent
    2 Σ_k slope_ijk u_ik; what that gives x_j is taken from x_i.
    """
    differences = differences_at(x, first, last)
    to_others = to_unit_rows(2 * slope @ unit_rows(differences), differences)
    outside = (x.new_zeros((first, x.shape[1])), x.new_zeros((x.shape[0] - last, x.shape[1])))
    return to_others.sum(0) - torch.cat([outside[0], to_others.sum(1), outside[1]])


@in_double
def rkd_angle_gradient(student: Tensor, teacher: Tensor) -> Tensor:
    """dL/dstudent of rkd_angle_loss: slope = clamp(cos_S - cos_T, -1, 1) / N³, then pulled_at."""

    def chunk(student: Tensor, teacher: Tensor, first: int, last: int) -> Tensor:
        difference = cosines_at(student, first, last) - cosines_at(teacher, first, last)
        return pulled_at(difference.clamp(-1, 1), student, first, last)

    scale = power_of_two_scale(student)
    rows = (student * scale, scaled_teacher(teacher))
    parts = over_anchors(widest(*rows), chunk, *rows)
    return scale * sum(parts, torch.zeros_like(student)) / max(student.shape[0] ** 3, 1)


@in_double
def similarity_gradient(student: Tensor, teacher: Tensor) -> Tensor:
    """dL/dstudent of similarity_loss.

    E = 2 (Ĝ_S - Ĝ_T) / N²; through the row normalisation dL/dG_i = (E_i - (E_i · Ĝ_i) Ĝ_i)/|G_i|,
    zero for a zero row; through G = Q Qᵀ: dL/dQ = (dL/dG + dL/dGᵀ) Q.
    """
    scale = power_of_two_scale(student)
    rows = student * scale
    gram = rows @ rows.mT
    unit = unit_rows(gram)
    error = 2 * (unit - row_normalised_gram(teacher.detach())) / max(gram.numel(), 1)
    inner = power_of_two_scale(gram[..., None, :])[..., 0]
    inverse = inner * safe_root((gram * inner).square().sum(-1, keepdim=True))[1]
    to_gram = (error - (error * unit).sum(-1, keepdim=True) * unit) * inverse
    return scale * ((to_gram + to_gram.mT) @ rows)


@in_double
def pairwise_distance_gradient(
    grad: Tensor, x: Tensor, y: Tensor | None, squared: bool, out: Tensor
) -> tuple[Tensor, Tensor]:
    """(dL/dx, dL/dy) for the cotangent grad (..., N, M): W = grad, or grad / (2 d), d = out.

    For y = None the second is empty.
    """
    weights = grad if squared else grad * inverse_or_zero(out) / 2
    if y is None:
        return to_rows(weights + weights.mT, x, x), x.new_empty(0)
    return to_rows(weights, x, y), to_rows(weights.mT, y, x)


def inverse_or_zero(distances: Tensor) -> Tensor:
    """1/d, zero with zero gradient at d = 0."""
    zero = distances == 0
    return torch.where(zero, 0.0, 1 / torch.where(zero, 1.0, distances))


@in_double
def pairwise_cosine_gradient(grad: Tensor, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """(dL/dx, dL/dy) for the cotangent grad (..., N, M) of x̂ ŷᵀ; for y = None the second is
    empty."""
    if y is None:
        return to_unit_rows((grad + grad.mT) @ unit_rows(x), x), x.new_empty(0)
    return to_unit_rows(grad @ unit_rows(y), x), to_unit_rows(grad.mT @ unit_rows(x), y)


@in_double
def pairwise_angle_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """dL/dx for the cotangent grad (N, N, N): pulled_at of its part symmetric in (j, k)."""

    def chunk(grad: Tensor, x: Tensor, first: int, last: int) -> Tensor:
        part = grad[first:last]
        return pulled_at((part + part.mT) / 2, x, first, last)

    scale = power_of_two_scale(x)
    parts = over_anchors(x.shape, chunk, grad, x * scale)
    return scale * sum(parts, torch.zeros_like(x))
