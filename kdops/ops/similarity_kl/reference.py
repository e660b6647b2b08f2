"""The similarity KL in plain differentiable PyTorch: read this first.

A row of similarities is turned into a distribution over the rows that it meets; the loss is the
mean over rows of KL(teacher's || student's). Blocks of rows are made one at a time and made again
in the backward pass rather than kept for it, so that N x N is never stored.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdops._maths import at_least_one
from kdops._precision import in_double
from kdops._recompute import row_blocks, without_storing
from kdops._unit_rows import power_of_two_scale, safe_root, unit_rows


class Options(NamedTuple):
    """Logits are scale <x_i, y_j>, of unit rows where cosine; self_pairs: whether j = i counts."""

    student_scale: float
    teacher_scale: float
    cosine: bool
    self_pairs: bool


def compared(x: Tensor, mask: Tensor | None, cosine: bool) -> Tensor:
    """The rows that products are taken of; padding, which may hold anything, is zero."""
    if mask is not None:
        x = torch.where(mask.unsqueeze(-1), x, 0.0)
    return unit_rows(x) if cosine else x


def rows_and_keys(
    rows: Tensor, keys: Tensor | None, mask: Tensor | None, options: Options
) -> tuple[Tensor, Tensor]:
    """Both as they are compared; the rows are their own keys where there are none."""
    rows = compared(rows, mask, options.cosine)
    return rows, rows if keys is None else compared(keys, None, options.cosine)


def excluded(x: Tensor, mask: Tensor | None, options: Options) -> Tensor | None:
    """(1 or B, 1 or N, N), True for pairs of rows that do not meet; None if all do. A padded row,
    which is zero, meets all with equal similarities in both networks: it adds nothing."""
    parts = [] if mask is None else [~mask.unsqueeze(-2)]
    if not options.self_pairs:
        parts.append(torch.eye(x.shape[1], dtype=torch.bool, device=x.device).unsqueeze(0))
    return (parts[0] | parts[1] if len(parts) == 2 else parts[0]) if parts else None


def log_shares(x: Tensor, y: Tensor, scale: float, out: Tensor | None) -> Tensor:
    """(B, N, M) of log softmax over j of scale <x_i, y_j>, finite also where `out` says no."""
    logits = (scale * x) @ y.mT
    if out is not None:
        logits = logits.masked_fill(out, torch.finfo(x.dtype).min / 4)
    return torch.log_softmax(logits, -1)


def row_count(x: Tensor, mask: Tensor | None) -> Tensor | int:
    """How many rows the mean is over, one at least."""
    if mask is None:
        return at_least_one(x.shape[0] * x.shape[1])
    return mask.sum().clamp(min=1).to(x.dtype)


@in_double
def similarity_kl_loss(
    student: Tensor,
    keys: Tensor | None,
    teacher: Tensor,
    teacher_keys: Tensor | None,
    mask: Tensor | None,
    options: Options,
) -> Tensor:
    """Rows (B, N, D) and (B, N, D') against keys (B, M, D) and (B, M, D'), None for the rows
    themselves; mask (B, N) of the rows that count. -> ()"""
    x, y = rows_and_keys(student, keys, mask, options)
    u, v = (x.detach() for x in rows_and_keys(teacher, teacher_keys, mask, options))
    out = None if keys is not None else excluded(x, mask, options)

    def part(x: Tensor, y: Tensor, out: Tensor | None, block: slice) -> Tensor:
        if out is not None and out.shape[1] > 1:
            out = out[:, block]
        log_s = log_shares(x[:, block], y, options.student_scale, out)
        log_t = log_shares(u[:, block], v, options.teacher_scale, out)
        return (log_t.exp() * (log_t - log_s)).sum()

    total = (x.sum() + y.sum()) * 0  # keeps NaN, dtype and the graph for N = 0
    blocks = row_blocks(x.shape[1], x.shape[0] * y.shape[1])
    for block in blocks:
        total = total + without_storing(len(blocks), part, x, y, out, block)
    return total / row_count(x, mask)


NORM_PADDING = 1e-7  # added to PKT's norms, as published


def padded_norm(x: Tensor) -> tuple[Tensor, Tensor]:
    """|x| of rows and 1 / (|x| + 1e-7), which is zero with zero gradient for a zero row."""
    scale = power_of_two_scale(x[..., None, :])[..., 0]
    norm = safe_root((x * scale).square().sum(-1, keepdim=True))[0] / scale
    zero = norm == 0
    return norm, torch.where(zero, 0.0, 1 / (torch.where(zero, 1.0, norm) + NORM_PADDING))


def pkt_shares(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """p = c / row sum of c = (cosine + 1) / 2, and the row sums, of normalised rows."""
    similarity = (rows @ others.mT + 1) / 2
    sums = similarity.sum(-1, keepdim=True)
    return similarity / sums, sums


@in_double
def pkt_loss(student: Tensor, teacher: Tensor, epsilon: float) -> Tensor:
    """mean of p_T log((p_T + eps) / (p_S + eps)) over all pairs of rows (N, D) and (N, D')."""
    x, u = (r * padded_norm(r)[1] for r in (student, teacher.detach()))

    def part(x: Tensor, block: slice) -> Tensor:
        p_s, p_t = pkt_shares(x[block], x)[0], pkt_shares(u[block], u)[0]
        return (p_t * torch.log((p_t + epsilon) / (p_s + epsilon))).sum()

    total = x.sum() * 0
    blocks = row_blocks(len(x), len(x))
    for block in blocks:
        total = total + without_storing(len(blocks), part, x, block)
    return total / at_least_one(x.shape[0] ** 2)
