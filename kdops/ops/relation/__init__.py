"""Relations between the rows of a batch: distances, cosines, angles and the losses on them."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from kdops import _check, _inputs
from kdops._autograd import wants_grad
from kdops._unit_rows import unit_rows
from kdops.ops.relation import registration

__all__ = [
    "pairwise_angle",
    "pairwise_cosine",
    "pairwise_distance",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "similarity_loss",
]


def rkd_distance_loss(student: Tensor, teacher: Tensor, *, normalize: bool = False) -> Tensor:
    """Distance-wise relational distillation (RKD-D).

    ψ_ij = |x_i - x_j| / μ, μ the mean of the distances that are not zero (the gradient flows
    through it); loss = mean over all N² pairs of smooth-L1(ψ_S - ψ_T) with beta = 1.

    Args:
        student: (N, D) embeddings, or maps (N, *S), which are flattened.
        teacher: (N, D') or maps; a constant. D' need not be D.
        normalize: divide every row by its L2 norm first (a zero row stays zero).

    Returns:
        0-d loss; float32 for half inputs. 0 for N < 2. A NaN row gives NaN.

    Cost: 3 N² D multiply-adds for loss and gradient together, O(N²) extra memory. Equal rows give
    zero distance and zero gradient. Differentiable twice.

    Differs from: published code clamps d² at 1e-12 before the root, whose gradient at equal rows
    is 1e6 times too large; it loses all digits on offset data, which are centred here.

    >>> loss = rkd_distance_loss(torch.randn(64, 512, requires_grad=True), torch.randn(64, 2048))
    """
    return _rkd("rkd_distance_loss", "rkd_distance", student, teacher, normalize)


def rkd_angle_loss(student: Tensor, teacher: Tensor, *, normalize: bool = False) -> Tensor:
    """Angle-wise relational distillation (RKD-A).

    A_ijk = <e_ij, e_ik>, e_ij = (x_j - x_i) / |x_j - x_i|: the cosine of the angle at x_i; loss =
    mean over all N³ triples of smooth-L1(A_S - A_T) with beta = 1.

    Args:
        student: (N, D) embeddings, or maps (N, *S), which are flattened.
        teacher: (N, D') or maps; a constant. D' need not be D.
        normalize: divide every row by its L2 norm first (a zero row stays zero).

    Returns:
        0-d loss; float32 for half inputs. 0 for N = 0. A NaN row gives NaN.

    Cost: 3 N² D multiply-adds and 8 N³ simple operations for loss and gradient together, O(N²)
    extra memory: nothing of size N x N x D or N x N x N exists. Differentiable twice.

    Differs from: published code divides by max(|x_j - x_i|, 1e-12), so that one repeated row makes
    the gradient norm 3e9; here such a pair has no direction and adds nothing to the gradient.

    Limit: cosines come from distances, with twice the digits of double where some rows lie far from
    others that are near each other. That serves to 1e24 times as far; there eight digits are left,
    and one less with every further factor of ten.

    >>> loss = rkd_angle_loss(torch.randn(64, 512, requires_grad=True), torch.randn(64, 2048))
    """
    return _rkd("rkd_angle_loss", "rkd_angle", student, teacher, normalize)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Similarity-preserving distillation (SP).

    Q = x flattened to (N, C H W), G = Q Qᵀ, Ĝ = G with rows divided by their L2 norms; loss =
    |Ĝ_S - Ĝ_T|_F² / N².

    Args:
        student: (N, D) or maps (N, *S).
        teacher: (N, D') or maps; a constant. D' need not be D.

    Returns:
        0-d loss; float32 for half inputs. 0 for N = 0. A zero row gives a zero row of Ĝ.

    Cost: 3 N² D multiply-adds for loss and gradient together. Differentiable twice.

    Differs from: one library divides the rows of G by their L1 norms.

    >>> loss = similarity_loss(torch.randn(64, 32, 8, 8, requires_grad=True), torch.randn(64, 256))
    """
    _check_losses("similarity_loss", student, teacher)
    return _loss("similarity", *_loss_rows(student, teacher))


def pairwise_distance(x: Tensor, y: Tensor | None = None, *, squared: bool = False) -> Tensor:
    """Euclidean distances between all rows: d_ij = |x_i - y_j|, or their squares.

    Args:
        x: (..., N, D).
        y: (..., M, D) with leading dimensions that broadcast with those of x; None means y = x.
        squared: return d² instead.

    Returns:
        (..., N, M) in the dtype of the inputs; half types are computed in float32.

    Cost: N M D multiply-adds forward (half for y = None), as many again per input backward. Rows
    are centred first; pairs much closer than their norms, and sums of the gradient that cancel, are
    taken from differences: offset or clustered data and far rows keep their digits. Zero distances
    have zero gradient. Differentiable to any order.

    >>> pairwise_distance(torch.randn(8, 16), torch.randn(5, 16)).shape
    torch.Size([8, 5])
    """
    x, y, result = _pair("pairwise_distance", x, y)
    return _inputs.of_dtype(_pairwise("pairwise_distance", x, y, squared), result)


def pairwise_cosine(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Cosines between all rows: c_ij = <x_i, y_j> / (|x_i| |y_j|), 0 where a row is zero.

    Args:
        x: (..., N, D).
        y: (..., M, D) with leading dimensions that broadcast with those of x; None means y = x.

    Returns:
        (..., N, M) in the dtype of the inputs; half types are computed in float32.

    Cost: as pairwise_distance. A zero row has zero gradient. Differentiable to any order.

    >>> pairwise_cosine(torch.randn(8, 16)).shape
    torch.Size([8, 8])
    """
    x, y, result = _pair("pairwise_cosine", x, y)
    return _inputs.of_dtype(_pairwise("pairwise_cosine", x, y), result)


def pairwise_angle(x: Tensor) -> Tensor:
    """Cosines of all angles: entry (i, j, k) = <e_ij, e_ik>, e_ij = (x_j - x_i) / |x_j - x_i|.

    Entries with j or k at the same point as i are 0. For the RKD loss on angles use
    rkd_angle_loss, which needs no N³ memory.

    Args:
        x: (N, D).

    Returns:
        (N, N, N) in the dtype of x; half types are computed in float32.

    Cost: N² D multiply-adds and 3 N³ operations; the memory of the result. Differentiable to any
    order. Limit: as of rkd_angle_loss, rows 1e24 times as far as others are near.

    >>> pairwise_angle(torch.randn(8, 16)).shape
    torch.Size([8, 8, 8])
    """
    _check.tensor("pairwise_angle", "x", x)
    _check.rank("pairwise_angle", "x", x, "[N, D]", 2)
    x, result = _inputs.computed(x)
    op = registration.ops["pairwise_angle"]
    run = op.run if op.serves(x, *x.shape) else op.plain
    return _inputs.of_dtype(run(x), result)


# ---- behind the public names ---------------------------------------------------------------------


def _check_losses(op: str, student: Tensor, teacher: Tensor) -> None:
    for name, value in (("student", student), ("teacher", teacher)):
        _check.tensor(op, name, value)
        _check.rank(op, name, value, "[N, D] or [N, *S]", 2, -1)
    _check.same_device(op, student=student, teacher=teacher)
    _check.same_size(op, "number of rows", student=student.shape[0], teacher=teacher.shape[0])


def _loss_rows(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) rows in the dtype that is computed in; the teacher may have another dtype."""
    s, t = _inputs.widened(student), _inputs.constant(teacher)
    t = _inputs.of_dtype(t, s.dtype)
    return (s if s.dim() == 2 else s.flatten(1)), (t if t.dim() == 2 else t.flatten(1))


def _rkd(name: str, op: str, student: Tensor, teacher: Tensor, normalize: bool) -> Tensor:
    _check_losses(name, student, teacher)
    student, teacher = _loss_rows(student, teacher)
    if normalize:
        student, teacher = unit_rows(student), unit_rows(teacher)
    return _loss(op, student, teacher)


def _loss(name: str, student: Tensor, teacher: Tensor) -> Tensor:
    op = registration.ops[name]
    loss: Tensor
    if op.serves(student, *student.shape, teacher.shape[1]):
        loss = op.run(student, teacher, wants_grad(student))[0]
    else:
        loss = op.plain(student, teacher)
    return loss


def _pair(op: str, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None, torch.dtype]:
    """Checked arguments in the dtype that is computed in, and the dtype of the result."""
    _check.tensor(op, "x", x)
    _check.rank(op, "x", x, "[..., N, D]", 2, -1)
    if y is None:
        x, result = _inputs.computed(x)
        return x, None, result
    _check.tensor(op, "y", y)
    _check.rank(op, "y", y, "[..., M, D]", 2, -1)
    _check.same_kind(op, x=x, y=y)
    _check.same_size(op, "row length", x=x.shape[-1], y=y.shape[-1])
    x, y = _inputs.outside_autocast(x, y)
    return _inputs.widened(x), _inputs.widened(y), x.dtype


def _pairwise(name: str, x: Tensor, y: Tensor | None, *options: bool) -> Tensor:
    """The op on (batch, N, D) rows, with the leading dimensions put back."""
    op = registration.ops[name]
    leading = x.shape[:-2]
    if y is not None and y.shape[:-2] != leading:
        leading = _broadcast(name, leading, y.shape[:-2])
        x, y = x.expand(*leading, *x.shape[-2:]), y.expand(*leading, *y.shape[-2:])
    m = x.shape[-2] if y is None else y.shape[-2]
    n, d = x.shape[-2:]
    out: Tensor
    if not op.serves(x, prod(leading), n, m, d):
        out = op.plain(x, y, *options)
        return out
    rows = x.reshape(prod(leading), n, d)
    others = None if y is None else y.reshape(prod(leading), m, d)
    out = op.run(rows, others, *options)
    return out.view(*leading, n, m)


def _broadcast(op: str, x: torch.Size, y: torch.Size) -> torch.Size:
    try:
        return torch.Size(torch.broadcast_shapes(x, y))
    except RuntimeError as error:
        raise ValueError(
            f"{op}: expected leading dimensions of x and y that broadcast, got {list(x)} and "
            f"{list(y)}"
        ) from error
