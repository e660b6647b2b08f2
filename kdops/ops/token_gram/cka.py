"""Centred kernel alignment in plain differentiable PyTorch: read this first.

CKA = <K_S, K_T> / (|K_S| |K_T|), K = X Xᵀ of the centred rows. Where the N x N matrices are cheap
the loss is taken from their difference, 1 - CKA = |K_S/|K_S| - K_T/|K_T||² / 2, which keeps its
digits where student and teacher are alike; else from products of columns, <K_S, K_T> = |XᵀY|²,
which do not, and are therefore computed in double.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._maths import largest_entry, power_of_two_scale
from kdops._precision import in_double
from kdops._unit_rows import safe_root


def cka_loss(student: Tensor, teacher: Tensor, inside: Tensor | None, centred: bool) -> Tensor:
    """The mean of 1 - CKA: student (B, N, D_S), teacher (B, N, D_T), inside (B, N) or None."""
    losses = cka_losses(student, teacher, inside, centred)
    return (losses.sum() / max(len(losses), 1)).to(student.dtype)


def cka_losses(student: Tensor, teacher: Tensor, inside: Tensor | None, centred: bool) -> Tensor:
    """1 - CKA of each (B,)."""
    counts = None if inside is None else inside.unsqueeze(-1)
    x, y = (prepared(rows, counts, centred) for rows in (student, teacher.detach()))
    if by_rows(student, teacher):
        return _by_rows(x @ x.mT, y @ y.mT)
    return _by_columns(x, y)


def cka_gradient(student: Tensor, teacher: Tensor, inside: Tensor | None, centred: bool) -> Tensor:
    """dL/dstudent (B, N, D_S) as a function that can be differentiated again."""
    gradient: Tensor = torch.func.grad(cka_loss)(student, teacher, inside, centred)
    return gradient


def by_rows(student: Tensor, teacher: Tensor) -> bool:
    """Whether K (N x N) is cheaper than products of columns (the kernel: cka_steps.h)."""
    (n, a), b = student.shape[1:], teacher.shape[2]
    return n * (a + b) <= 2 * (a * a + a * b + b * b)


@in_double
def _by_columns(x: Tensor, y: Tensor) -> Tensor:
    own, other = (inverse_norm(rows.mT @ rows) for rows in (x, y))
    return 1 - _squares(x.mT @ y) * own * other


def _by_rows(k_s: Tensor, k_t: Tensor) -> Tensor:
    own, other = inverse_norm(k_s), inverse_norm(k_t)
    unit_s, unit_t = (
        k * inverse[..., None, None].to(k.dtype) for k, inverse in ((k_s, own), (k_t, other))
    )
    return of_squares(_squares(unit_s - unit_t), own, other)


def of_squares(squares: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """1 - CKA (B,) of |K_S/|K_S| - K_T/|K_T||², and 1/|K| of both, 0 where K is."""
    dead = (own == 0) | (other == 0)  # of these CKA is 0, or NaN
    return torch.where(dead, 1 + own * other, squares / 2)


def _squares(k: Tensor) -> Tensor:
    """|K|² (B,) in double."""
    return k.square().sum((-2, -1), dtype=torch.float64 if k.device.type != "mps" else k.dtype)


def inverse_norm(k: Tensor) -> Tensor:
    """1 / |K| (B,) in double; 0, with zero gradient, where K is 0."""
    return safe_root(_squares(k))[1]


def prepared(rows: Tensor, inside: Tensor | None, centre: bool) -> Tensor:
    """The rows (..., N, D) in units in which they are of size one, padding zero, centred."""
    rows = scaled(rows, inside)[0]
    return centred(rows, inside) if centre else rows


def scaled(rows: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
    """The rows in such units, padding zero, and the power of two (..., 1, 1) that does it."""
    if inside is not None:
        rows = rows.where(inside, rows.new_zeros(()))
    if rows.numel() == 0:
        return rows, rows.new_ones(())
    scale = power_of_two_scale(largest_entry(rows, (-2, -1)))
    return rows * scale, scale


def centred(x: Tensor, inside: Tensor | None) -> Tensor:
    """x minus the mean of its rows. Twice, for data far from zero; a constant column is exactly
    zero, not what the rounding of its mean leaves."""
    if x.numel() == 0:
        return x
    if inside is None:
        count: Tensor | int = x.shape[-2]
        first, known = x[..., :1, :], None
    else:
        count = inside.sum(-2, keepdim=True).clamp(min=1)
        place = inside.to(torch.uint8).argmax(-2, keepdim=True)
        first, known = x.gather(-2, place.expand(*place.shape[:-1], x.shape[-1])), ~inside
    same = x.detach() == first.detach()
    constant = (same if known is None else same | known).all(-2, keepdim=True)
    for _ in range(2):
        x = x - x.sum(-2, keepdim=True) / count
        if inside is not None:
            x = x.where(inside, x.new_zeros(()))
    return x.where(~constant, x.new_zeros(()))
