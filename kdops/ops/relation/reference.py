"""The mathematics of the relation ops in plain differentiable PyTorch: read this first.

Distances, angles and similarities between the N rows of a batch x (N, D). Three habits keep them
accurate and their gradients finite:

* rows are scaled by a power of two first and centred before they are multiplied (both as
  constants, so the result and its derivatives are unchanged), hence neither offset data nor 1e+20
  or 1e-20 hurt;
* the value of a squared distance comes from differences of rows, so equal rows give exactly zero,
  while its derivative is that of the Gram expansion, which needs no N x N x D tensor; it cancels
  for rows much closer to each other than to the centre, so float32 is computed in float64;
* a zero distance or norm has the inverse zero: its relation is zero and passes no gradient.

An angle needs only distances: <x_j - x_i, x_k - x_i> = (d_ij² + d_ik² - d_jk²) / 2. The N³ cosines
are walked in chunks of anchors i that are recomputed in the backward, so memory stays O(N²).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from kdops._precision import in_double

CHUNK_ELEMENTS = 1 << 22  # cosines held at once


def power_of_two_scale(x: Tensor) -> Tensor:
    """A constant 2^-e that brings max|x| of each matrix (..., N, D) to [1/2, 1); 1 where max|x|
    is 0. NaN and Inf entries do not count. Shape (..., 1, 1)."""
    if x.numel() == 0:
        return x.new_ones((*x.shape[:-2], 1, 1))
    largest = x.detach().abs().nan_to_num(0.0, 0.0).amax(dim=(-2, -1), keepdim=True)
    # At the ends of the exponent range 2^-e would overflow or vanish.
    most = 1022 if x.dtype == torch.float64 else 126
    exponent = torch.frexp(largest).exponent.clamp(-most, most)
    return torch.ldexp(torch.ones_like(largest), -exponent)


def centre(*parts: Tensor) -> tuple[Tensor, ...]:
    """Subtract from every part (..., N_p, D) the common mean of all rows, as a constant.

    Any centre is right; the mean is accurate. Entries that are NaN or Inf do not count, so that
    they spoil their own row alone.
    """
    rows = sum(part.shape[-2] for part in parts)
    total = sum(part.detach().nan_to_num(0.0, 0.0, 0.0).sum(-2, keepdim=True) for part in parts)
    return tuple(part - total / max(rows, 1) for part in parts)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(..., N, M) of |x_i - y_j|²: value by differences, derivative by the Gram expansion."""
    exact = torch.cdist(
        x.detach(), y.detach(), compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    if not (torch.is_grad_enabled() or forward_ad._current_level >= 0):
        return exact
    x, y = centre(x, y)
    gram = x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * (x @ y.mT)
    return exact + (gram - gram.detach())  # zero, with a derivative


def safe_root(squared: Tensor) -> tuple[Tensor, Tensor]:
    """d = sqrt(d²) and 1/d, both zero with zero gradient at d² = 0. NaN stays NaN."""
    zero = squared <= 0
    root = torch.where(zero, 1.0, squared).sqrt()
    return torch.where(zero, 0.0, root), torch.where(zero, 0.0, 1.0 / root)


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
def unit_rows(x: Tensor) -> Tensor:
    """Rows divided by their norm; a zero row stays zero and has zero gradient."""
    scaled = x * power_of_two_scale(x[..., None, :])[..., 0]
    return scaled * safe_root(scaled.square().sum(-1, keepdim=True))[1]


@in_double
def pairwise_cosine(x: Tensor, y: Tensor | None = None) -> Tensor:
    """(..., N, M) cosines between the rows of x and of y (or x)."""
    left = unit_rows(x)
    return left @ (left if y is None else unit_rows(y)).mT


def cosines_at(squares: Tensor, first: int, last: int) -> Tensor:
    """(last - first, N, N): cos of the angle at anchor i between j and k, first <= i < last."""
    near = squares[first:last]
    inverse = safe_root(near)[1]
    dots = (near[:, :, None] + near[:, None, :] - squares[None]) / 2
    return dots * inverse[:, :, None] * inverse[:, None, :]


@in_double
def pairwise_angle(x: Tensor) -> Tensor:
    """(N, N, N): entry (i, j, k) is the cosine of the angle at x_i between x_j and x_k."""
    squares = distances_of_scaled(x)
    return cosines_at(squares, 0, x.shape[0])


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


def over_anchors(n: int, chunk_sum: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Sum of chunk_sum(*tensors, first, last) over chunks of anchors.

    With more than one chunk its intermediates are recomputed in the backward instead of kept
    (not under torch.func, which knows no saved-tensor hooks).
    """
    chunk = max(1, CHUNK_ELEMENTS // max(n * n, 1))
    if chunk >= n:
        return chunk_sum(*tensors, 0, n)
    lean = torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
    total: Tensor | None = None
    for first in range(0, n, chunk):
        arguments = (*tensors, first, min(n, first + chunk))
        if lean:
            part = checkpoint(chunk_sum, *arguments, use_reentrant=False)
        else:
            part = chunk_sum(*arguments)
        total = part if total is None else total + part
    assert total is not None
    return total


@in_double
def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all N³ triples of huber(cos_S - cos_T)."""
    n = student.shape[0]
    d_s, d_t = distances_of_scaled(student), distances_of_scaled(teacher.detach())

    def chunk_sum(d_s: Tensor, d_t: Tensor, first: int, last: int) -> Tensor:
        return huber(cosines_at(d_s, first, last) - cosines_at(d_t, first, last)).sum()

    return over_anchors(n, chunk_sum, d_s, d_t) / max(n**3, 1)


def row_normalised_gram(x: Tensor) -> Tensor:
    """G = x xᵀ with every row divided by its norm."""
    scaled = x * power_of_two_scale(x)
    return unit_rows(scaled @ scaled.mT)


@in_double
def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """|Ĝ_S - Ĝ_T|_F² / N² of the row-normalised Gram matrices of (N, D) rows."""
    difference = row_normalised_gram(student) - row_normalised_gram(teacher.detach())
    return difference.square().sum() / max(difference.numel(), 1)
