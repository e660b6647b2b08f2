"""The gradient of the similarity KL as a pure function of tensors (differentiable itself).

With p the softmax over j of the logits a <x_i, y_j>, and R rows that count, dKL_i / dlogits_ij is
p_S,ij - p_T,ij. So with W = a (p_S - p_T) / R

    g_x = W y,   g_y = Wᵀ x,   both added where y is x,

and unit rows are taken back to the rows they were made of. A padded row is zero, its similarities
are equal in both networks and its W is zero. The N x N matrices are stored here; the kernels, which
compute the first derivative, make tiles of them.

PKT: with p = c / r of c = (<x_i, x_j> + 1) / 2 and its row sums r, G_ij = -p_T / (p_S + eps) / N²,
dloss / dc_ij = (G_ij - sum_k G_ik p_ik) / r_i.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._maths import at_least_one
from kdops._precision import in_double
from kdops._unit_rows import to_unit_rows, unit_rows
from kdops.ops.similarity_kl.reference import (
    Options,
    compared,
    excluded,
    log_shares,
    padded_norm,
    pkt_shares,
    row_count,
    rows_and_keys,
)


@in_double
def similarity_kl_gradient(
    student: Tensor,
    keys: Tensor | None,
    teacher: Tensor,
    teacher_keys: Tensor | None,
    mask: Tensor | None,
    options: Options,
) -> tuple[Tensor, Tensor]:
    """The gradients of student (B, N, D) and of keys (B, M, D), the latter empty for None."""
    x, y = rows_and_keys(student, keys, mask, options)
    u, v = rows_and_keys(teacher, teacher_keys, mask, options)
    out = None if keys is not None else excluded(x, mask, options)
    shares_s = log_shares(x, y, options.student_scale, out).exp()
    shares_t = log_shares(u, v, options.teacher_scale, out).exp()
    weights = (shares_s - shares_t) * (options.student_scale / row_count(x, mask))
    if keys is None:
        g_student, g_keys = (weights + weights.mT) @ x, x.new_zeros(0)
    else:
        g_student, g_keys = weights @ y, weights.mT @ x
    if options.cosine:
        g_student = to_unit_rows(g_student, compared(student, mask, False))
        g_keys = g_keys if keys is None else to_unit_rows(g_keys, keys)
    if mask is not None:
        g_student = torch.where(mask.unsqueeze(-1), g_student, 0.0)
    return g_student, g_keys


@in_double
def pkt_gradient(student: Tensor, teacher: Tensor, epsilon: float) -> Tensor:
    """The gradient of student (N, D)."""
    norm, inverse = padded_norm(student)
    x, u = student * inverse, teacher * padded_norm(teacher)[1]
    p_s, sums = pkt_shares(x, x)
    p_t = pkt_shares(u, u)[0]
    # plus one, which changes no difference: it keeps the digits of close networks
    slopes = 1 - p_t / (p_s + epsilon)
    to_similarity = (slopes - (slopes * p_s).sum(-1, keepdim=True)) / sums
    g = (to_similarity + to_similarity.mT) @ x / (2 * at_least_one(x.shape[0] ** 2))
    direction = unit_rows(student)
    along = (g * direction).sum(-1, keepdim=True) * norm * inverse
    return (g - along * direction) * inverse
