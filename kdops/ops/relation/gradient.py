"""The first derivatives of the relation ops as pure, differentiable functions of tensors.

All but the cosines depend on the rows through squared distances D_ij = |x_i - y_j|² or through a
Gram matrix. With W = dL/dD,

    dL/dx_i = 2 Σ_j W_ij (x_i - y_j),   dL/dy_j = 2 Σ_i W_ij (y_j - x_i),

one matrix product each (for y = x: one product with the Laplacian of W + Wᵀ). What remains per op
is W, an elementwise formula. The fused kernels compute these expressions; second derivatives are
taken through these functions. The products cancel for rows much closer to each other than to the
centre, so float32 is computed in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._precision import in_double
from kdops.ops.relation.reference import (
    centre,
    cosines_at,
    distances_of_scaled,
    mean_scaled_distances,
    over_anchors,
    power_of_two_scale,
    row_normalised_gram,
    safe_root,
    squared_distances,
    unit_rows,
)


def to_rows(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """dL/dx of the first formula above: W (..., N, M), x (..., N, D), y (..., M, D)."""
    x, y = centre(x, y)
    return 2 * (weights.sum(-1, keepdim=True) * x - weights @ y)


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


def angle_weights(slope: Tensor, squares: Tensor, first: int, last: int) -> Tensor:
    """(N, N): what anchors first <= i < last add to W, from slope = dL/dcos, symmetric in (j, k).

    As cos_ijk = (D_ij + D_ik - D_jk) r_ij r_ik / 2 with r = D^(-1/2), anchor i adds
    r_ij Σ_k h_ijk (r_ik - cos_ijk r_ij) to W_ij (both places of j counted) and
    -h_ijk r_ij r_ik / 2 to W_jk. Where D = 0, r = 0 and the pair adds nothing.
    """
    near = safe_root(squares[first:last])[1]
    along = (slope * cosines_at(squares, first, last)).sum(-1)
    to_anchor = near * ((slope @ near[:, :, None])[..., 0] - along * near)
    opposite = torch.einsum("ijk,ij,ik->jk", slope, near, near)
    above = near.new_zeros((first, squares.shape[0]))
    below = near.new_zeros((squares.shape[0] - last, squares.shape[0]))
    return torch.cat([above, to_anchor, below]) - opposite / 2


@in_double
def rkd_angle_gradient(student: Tensor, teacher: Tensor) -> Tensor:
    """dL/dstudent of rkd_angle_loss: h = clamp(cos_S - cos_T, -1, 1) / N³, then angle_weights."""
    scale = power_of_two_scale(student)
    rows = student * scale
    d_s, d_t = squared_distances(rows, rows), distances_of_scaled(teacher.detach())

    def chunk_weights(d_s: Tensor, d_t: Tensor, first: int, last: int) -> Tensor:
        difference = cosines_at(d_s, first, last) - cosines_at(d_t, first, last)
        return angle_weights(difference.clamp(-1, 1), d_s, first, last)

    n = student.shape[0]
    weights = over_anchors(n, chunk_weights, d_s, d_t) / max(n**3, 1)
    return scale * to_rows(weights + weights.mT, rows, rows)


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
def to_unit_rows(grad: Tensor, x: Tensor) -> Tensor:
    """dL/dx from the cotangent of x/|x|: (grad - (grad · x̂) x̂) / |x|, zero for a zero row."""
    scale = power_of_two_scale(x[..., None, :])[..., 0]
    rows = x * scale
    inverse = safe_root(rows.square().sum(-1, keepdim=True))[1]
    unit = rows * inverse
    return (grad - (grad * unit).sum(-1, keepdim=True) * unit) * inverse * scale


@in_double
def pairwise_cosine_gradient(grad: Tensor, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """(dL/dx, dL/dy) for the cotangent grad (..., N, M) of x̂ ŷᵀ; for y = None the second is
    empty."""
    if y is None:
        return to_unit_rows((grad + grad.mT) @ unit_rows(x), x), x.new_empty(0)
    return to_unit_rows(grad @ unit_rows(y), x), to_unit_rows(grad.mT @ unit_rows(x), y)


@in_double
def pairwise_angle_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """dL/dx for the cotangent grad (N, N, N): angle_weights of its part symmetric in (j, k)."""
    scale = power_of_two_scale(x)
    rows = x * scale
    squares = squared_distances(rows, rows)

    def chunk_weights(grad: Tensor, squares: Tensor, first: int, last: int) -> Tensor:
        part = grad[first:last]
        return angle_weights((part + part.mT) / 2, squares, first, last)

    weights = over_anchors(x.shape[0], chunk_weights, grad, squares)
    return scale * to_rows(weights + weights.mT, rows, rows)
