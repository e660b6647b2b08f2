"""Gradients of the attention room: pure functions of tensors, differentiable themselves.

Q_l = Σ_c |x_cl|^p gives dx_cl = dQ_l p |x_cl|^(p-1) sign(x_cl), zero at x = 0 for every p; for the
maximum over c only the first largest channel receives it.

The loss c f(Q̂_S - Q̂_T), Q̂ = Q / |Q|, has g = dL/dQ̂_S = 2 c D (or c D / |D| for the norm) and
dQ_S = (g - Q̂_S <Q̂_S, g>) / |Q_S|, zero for a map that counts as zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._maths import safe_norm
from kdops.ops.attention import reference


def attention_map_backward(grad: Tensor, x: Tensor, p: float, largest: bool) -> Tensor:
    """Cotangent of x (B, C, L) for grad (B, L)."""
    if p == 2:
        slope = 2 * x
    else:
        nonzero = x != 0
        size = torch.where(nonzero, x, torch.ones_like(x)).abs()
        slope = torch.where(nonzero, p * size ** (p - 1) * x.sign(), x * 0)
    if largest and x.shape[1]:
        chosen = torch.zeros_like(x).scatter(1, x.abs().argmax(1, keepdim=True), 1.0)
        slope = slope * chosen
    return grad.unsqueeze(1) * slope


def attention_loss_gradient(
    student: Tensor, teacher: Tensor, p: float, largest: bool, paper: bool
) -> Tensor:
    """Cotangent of student (B, C, L) for a unit cotangent of the loss."""
    unit = reference.map_unit(student)
    student, teacher = student * unit, teacher * reference.map_unit(teacher)
    Q_s, Q_t = (reference.attention_map(x, p, largest) for x in (student, teacher))
    slope = attention_map_backward(map_cotangent(Q_s, Q_t, paper), student, p, largest)
    return reference.clipped(slope * unit)


def map_cotangent(Q_s: Tensor, Q_t: Tensor, paper: bool) -> Tensor:
    """dL/dQ_S from the attention maps (B, L) of student and teacher."""
    norm, negligible = reference.map_norms(Q_s)
    unit = torch.where(negligible, Q_s * 0, Q_s / norm)
    pull = unit - reference.unit_maps(Q_t)
    if paper:
        size = safe_norm(pull, 1).unsqueeze(1)
        pull = torch.where(size == 0, pull * 0, pull / torch.where(size == 0, 1, size)) / 2
    pull = 2 * pull / reference.divisor(Q_s, paper)
    dQ = (pull - unit * (unit * pull).sum(1, keepdim=True)) / norm
    return torch.where(negligible, dQ * 0, dQ)
