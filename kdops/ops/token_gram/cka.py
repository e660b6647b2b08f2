"""Centred kernel alignment in plain differentiable PyTorch, on every device: it is its products.

CKA = <K_S, K_T> / (|K_S| |K_T|), K = X Xᵀ of the centred rows. Where the N x N matrices are cheap
the loss is taken from their difference, 1 - CKA = |K_S/|K_S| - K_T/|K_T||² / 2, which keeps its
digits where student and teacher are alike; else from products of columns, <K_S, K_T> = |XᵀY|²,
which do not, and are therefore computed in double.

On the CPU the products are those of the gram op: half the work where they are symmetric, and the
same bits whatever the number of threads. It gives each matrix to one thread, so that large ones
are left to torch.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from kdops._maths import largest_entry, power_of_two_scale
from kdops._precision import in_double
from kdops._unit_rows import safe_root
from kdops.ops.gram.registration import gram

# multiply-adds of a product up to which one thread of the gram op is no slower than two of torch's
ONE_THREAD = 1 << 27


def cka_loss(student: Tensor, teacher: Tensor, inside: Tensor | None, centred: bool) -> Tensor:
    """1 - CKA for student (..., N, D_S), teacher (..., N, D_T), inside (..., N, 1): shape (...)."""
    x, y = (prepared(rows, inside, centred) for rows in (student, teacher.detach()))
    n, a, b = student.shape[-2], student.shape[-1], teacher.shape[-1]
    if n * (a + b) <= 2 * (a * a + a * b + b * b):
        small = n * n * max(a, b) <= ONE_THREAD
        return _by_rows(_product(x, None, small), _product(y, None, small))
    return _by_columns(x, y)


@in_double
def _by_columns(x: Tensor, y: Tensor) -> Tensor:
    small = x.shape[-2] * max(x.shape[-1], y.shape[-1]) ** 2 <= ONE_THREAD
    x, y = x.mT, y.mT
    own, other = (inverse_norm(_product(rows, None, small)) for rows in (x, y))
    return 1 - _squares(_product(x, y, small)) * own * other


def _product(x: Tensor, y: Tensor | None, small: bool) -> Tensor:
    """X Yᵀ, y = None: X Xᵀ, of x (..., M, L) and y (..., N, L), up to a factor that `small` sets.

    CKA does not see factors.
    """
    if not small or x.device.type != "cpu":
        return x @ (x if y is None else y).mT
    batch = x.shape[:-2]
    flat = (None if m is None else m.reshape(prod(batch), *m.shape[-2:]) for m in (x, y))
    k = gram(*flat)  # type: ignore[arg-type]
    return k.reshape(*batch, *k.shape[-2:])


def _by_rows(k_s: Tensor, k_t: Tensor) -> Tensor:
    own, other = inverse_norm(k_s), inverse_norm(k_t)
    unit_s, unit_t = (
        k * inverse[..., None, None].to(k.dtype) for k, inverse in ((k_s, own), (k_t, other))
    )
    dead = (own == 0) | (other == 0)  # of these CKA is 0, or NaN
    return torch.where(dead, 1 + own * other, _squares(unit_s - unit_t) / 2)


def _squares(k: Tensor) -> Tensor:
    """|K|² (...) in double."""
    return k.square().sum((-2, -1), dtype=torch.float64 if k.device.type != "mps" else k.dtype)


def inverse_norm(k: Tensor) -> Tensor:
    """1 / |K| (...) in double; 0, with zero gradient, where K is 0."""
    return safe_root(_squares(k))[1]


def prepared(rows: Tensor, inside: Tensor | None, centred: bool) -> Tensor:
    """The rows (..., N, D) in units in which they are of size one, padding zero, centred."""
    if rows.numel() == 0:
        return rows
    if inside is not None:
        rows = rows.where(inside, rows.new_zeros(()))
    rows = rows * power_of_two_scale(largest_entry(rows, (-2, -1)))
    return _centred(rows, inside) if centred else rows


def _centred(x: Tensor, inside: Tensor | None) -> Tensor:
    """x minus the mean of its rows. Twice, for data far from zero; a constant column is exactly
    zero, not what the rounding of its mean leaves."""
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
