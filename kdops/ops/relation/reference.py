"""The mathematics of the relation ops in plain differentiable PyTorch: read this first.

Distances, angles and similarities between the N rows of a batch x (N, D). Three habits keep them
accurate and their gradients finite:

* rows are scaled by a power of two first (a constant, so the result and its derivatives are
  unchanged), hence neither 1e+20 nor 1e-20 hurts;
* squared distances and their gradients come from differences of rows (_distances.py);
* a zero distance or norm has the inverse zero: its relation is zero and passes no gradient.

Angles are products of directions (x_j - x_i) / d_ij. (The kernels use the law of cosines, which
needs only distances, and take care of near rows beside far ones.) Anchors i are walked in chunks
that are recomputed in the backward, so no N x N x D or N³ tensor is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdops._distances import squared_distances
from kdops._precision import in_double
from kdops._recompute import without_storing
from kdops._unit_rows import power_of_two_scale, safe_root, unit_rows

CHUNK_ELEMENTS = 1 << 22  # numbers held at once: cosines, or differences of rows


def distances_of_scaled(x: Tensor) -> Tensor:
    """(N, N) squared distances of the rows of x (N, D), in units in which x is of size one.

    Scale-free losses (the gradient reaches x through the constant factor) need no more.
    """
    rows = x * power_of_two_scale(x)
    return squared_distances(rows, rows)


@in_double
def pairwise_distance(x: Tensor, y: Tensor | None = None, squared: bool = False) -> Tensor:
    """(..., N, M) Euclidean (or squared) distances between the rows of x and of y (or x)."""
    other = x if y is None else y
    scale = torch.minimum(power_of_two_scale(x), power_of_two_scale(other))
    squares = squared_distances(x * scale, other * scale)
    return squares / scale / scale if squared else safe_root(squares)[0] / scale


@in_double
def pairwise_cosine(x: Tensor, y: Tensor | None = None) -> Tensor:
    """(..., N, M) cosines between the rows of x and of y (or x)."""
    left = unit_rows(x)
    return left @ (left if y is None else unit_rows(y)).mT


def differences_at(x: Tensor, first: int, last: int) -> Tensor:
    """(last - first, N, D): x_j - x_i for the anchors first <= i < last."""
    return x[None] - x[first:last, None]


def cosines_at(x: Tensor, first: int, last: int) -> Tensor:
    """(last - first, N, N): cos of the angle at anchor i between j and k, first <= i < last."""
    directions = unit_rows(differences_at(x, first, last))
    return directions @ directions.mT


@in_double
def pairwise_angle(x: Tensor) -> Tensor:
    """(N, N, N): entry (i, j, k) is the cosine of the angle at x_i between x_j and x_k."""
    parts = over_anchors(x.shape, cosines_at, x * power_of_two_scale(x))
    return torch.cat(parts) if parts else x.new_zeros((0, 0, 0))


def huber(difference: Tensor) -> Tensor:
    """Smooth-L1 with beta = 1."""
    slope = difference.clamp(-1, 1)
    return slope * (difference - slope / 2)


def mean_scaled_distances(x: Tensor) -> Tensor:
    """(N, N) distances over the mean of those that are not zero (zero if there are none)."""
    distances, _ = safe_root(distances_of_scaled(x))
    count = (distances != 0).sum().clamp(min=1)
    mean = distances.sum() / count
    return distances * safe_root(mean.square())[1]


@in_double
def rkd_distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all N² pairs of huber(d_S / mean(d_S) - d_T / mean(d_T))."""
    difference = mean_scaled_distances(student) - mean_scaled_distances(teacher.detach())
    return huber(difference).sum() / max(difference.numel(), 1)


def over_anchors(
    shape: Sequence[int], part: Callable[..., Tensor], *tensors: Tensor
) -> list[Tensor]:
    """part(*tensors, first, last) for chunks of the anchors of rows of this shape (N, D)."""
    n, width = shape
    chunk = max(1, CHUNK_ELEMENTS // max(n * max(n, width), 1))
    starts = range(0, n, chunk)
    return [
        without_storing(len(starts), part, *tensors, first, min(n, first + chunk))
        for first in starts
    ]


def scaled_teacher(teacher: Tensor) -> Tensor:
    """The rows of a teacher, which needs no gradient, in units in which they are of size one."""
    rows = teacher.detach()
    return rows * power_of_two_scale(rows)


def widest(student: Tensor, teacher: Tensor) -> tuple[int, int]:
    """The shape by which over_anchors cuts two sets of rows."""
    return student.shape[0], max(student.shape[1], teacher.shape[1])


@in_double
def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all N³ triples of huber(cos_S - cos_T)."""

    def chunk_sum(student: Tensor, teacher: Tensor, first: int, last: int) -> Tensor:
        return huber(cosines_at(student, first, last) - cosines_at(teacher, first, last)).sum()

    rows = (student * power_of_two_scale(student), scaled_teacher(teacher))
    sums = over_anchors(widest(*rows), chunk_sum, *rows)
    return torch.stack(sums).sum() / student.shape[0] ** 3 if sums else student.sum()


def row_normalised_gram(x: Tensor) -> Tensor:
    """G = x xᵀ with every row divided by its norm."""
    scaled = x * power_of_two_scale(x)
    return unit_rows(scaled @ scaled.mT)


@in_double
def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """|Ĝ_S - Ĝ_T|_F² / N² of the row-normalised Gram matrices of (N, D) rows."""
    difference = row_normalised_gram(student) - row_normalised_gram(teacher.detach())
    return difference.square().sum() / max(difference.numel(), 1)
