"""Gram anchoring in plain differentiable PyTorch: read this first (CKA: cka.py).

Tokens are rows (B, N, D). The N x N matrices of gram anchoring are made a few rows at a time, and
made again in the backward pass rather than kept for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._maths import at_least_one
from kdops._precision import in_double
from kdops._recompute import row_blocks, without_storing
from kdops._unit_rows import unit_and_inverse

KEEP, DROP, DROP_TEACHER = range(3)  # what is done with negative entries, as the op numbers it


def difference(x: Tensor, y: Tensor, block: slice, negatives: int) -> tuple[Tensor, Tensor]:
    """Rows `block` of G_S - G_T (B, rows, N) of unit tokens, and of where it moves with x."""
    g_s, g_t = x[:, block] @ x.mT, y[:, block] @ y.mT
    moves = torch.ones_like(g_s, dtype=torch.bool)
    if negatives != KEEP:
        g_t = torch.where(g_t < 0, 0.0, g_t)
    if negatives == DROP:
        moves = ~(g_s < 0)  # NaN stays
        g_s = torch.where(moves, g_s, 0.0)
    return g_s - g_t, moves


@in_double
def gram_anchoring_loss(
    student: Tensor, teacher: Tensor, weights: Tensor | None, negatives: int
) -> Tensor:
    """sum_b w_b |G_S - G_T|² of student (B, N, D_S), teacher (B, N, D_T), weights (B,) or None."""
    x, y = unit_and_inverse(student)[0], unit_and_inverse(teacher.detach())[0]

    def part(x: Tensor, y: Tensor, block: slice) -> Tensor:
        return difference(x, y, block, negatives)[0].square().sum((1, 2))

    blocks = row_blocks(x.shape[1], x.shape[0] * x.shape[1])
    sums = x.sum((1, 2)) * 0  # keeps NaN, dtype and the graph for N = 0
    for block in blocks:
        sums = sums + without_storing(len(blocks), part, x, y, block)
    return (sums * image_weights(student, weights)).sum()


def image_weights(student: Tensor, weights: Tensor | None) -> Tensor | float:
    """(B,), or one number for all images: a mean over them and over all N² pairs."""
    if weights is not None:
        return weights
    batch, n, _ = student.shape
    return 1 / at_least_one(batch * n * n)
