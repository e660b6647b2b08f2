"""Batched polar factors and nuclear norms of small matrices."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from kdops import _inputs
from kdops._autograd import wants_grad
from kdops.ops.svd import arguments, calls, polar_gradient

__all__ = ["Polar", "batched_nuclear_norm", "batched_polar"]


class Polar(NamedTuple):
    """A = U H: U with orthonormal columns (rows if m < n), H positive semidefinite."""

    U: Tensor
    H: Tensor


def batched_polar(A: Tensor, *, side: str = "right", out: None = None) -> Polar:
    """Polar decomposition A = U H of every matrix: the closest orthogonal matrix and the stretch.

    The convention is that of scipy.linalg.polar(A, side="right"); torch.linalg has no polar. With
    the thin A = W diag(s) Vh it is U = W Vh and H = V diag(s) Vh.

    Args:
        A: (..., m, n), any leading dimensions, any strides; float64, float32, float16 or bfloat16
            (half types are computed in float32, and so is everything under autocast).
        side, out: for code written for scipy and torch. Only these values are offered.

    Returns:
        Polar(U, H): (..., m, n) and (..., n, n) in the dtype of A. U has orthonormal columns if
        m >= n, rows if m < n, also where A is singular; there H is unique and U is not. H is
        symmetric to the bit and positive semidefinite to rounding, of rank at most min(m, n).

    The gradient divides by sums s_i + s_j of singular values, so it is exact at equal ones, to any
    order. Values up to r eps s_1, r = min(m, n), count as zero: where both of a sum do, neither
    factor has a derivative and the pair passes no gradient. A matrix with NaN or Inf gives NaN for
    itself alone.

    Cost: one batched_svd, kept for the gradient, and 2 n r (m + n) FLOP; the gradient is a few
    matrix products.

    >>> U, H = batched_polar(torch.tensor([[0.0, -2.0], [3.0, 0.0]]))
    >>> H
    tensor([[3., 0.],
            [0., 2.]])
    """
    op = "batched_polar"
    m, n = arguments.matrix_shape(op, A)
    arguments.only(op, side=side, out=out)
    work, dtype = _inputs.computed(A)
    if min(m, n) == 0:
        return Polar(A.clone(), A.mT @ A)
    triples = calls.full(_inputs.constant(work), m, n, True, False, "mask", "accurate")
    U, H = polar_gradient.polar(work, *triples)
    return Polar(_inputs.of_dtype(U, dtype), _inputs.of_dtype(H, dtype))


def batched_nuclear_norm(A: Tensor, *, out: None = None) -> Tensor:
    """Sum of the singular values of every matrix, as torch.linalg.matrix_norm(A, ord="nuc").

    Args:
        A: (..., m, n), as for batched_polar.
        out: for code written for torch.linalg. Only None is offered.

    Returns:
        (...) in the dtype of A. A matrix with NaN or Inf gives NaN for itself alone.

    The gradient is the polar factor U Vh over the values that are not zero: those up to r eps s_1,
    r = min(m, n), pass none, as abs has gradient 0 at 0. (It is the subgradient of smallest norm.)
    It is exact at equal values, to any order.

    Cost: where no gradient is wanted batched_svdvals, otherwise one batched_svd, whose vectors are
    kept for the gradient, a matrix product. The two values agree to rounding.

    >>> batched_nuclear_norm(torch.eye(3))
    tensor(3.)
    """
    op = "batched_nuclear_norm"
    m, n = arguments.matrix_shape(op, A)
    arguments.only(op, out=out)
    work, dtype = _inputs.computed(A)
    if min(m, n) == 0:
        norm = work.sum((-2, -1))
    elif wants_grad(work):
        triples = calls.full(_inputs.constant(work), m, n, True, False, "mask", "accurate")
        norm = polar_gradient.nuclear_norm(work, *triples)
    else:
        norm = calls.values(work, m, n).sum(-1)
    return _inputs.of_dtype(norm, dtype)
