"""Gradients of the RBF operators as pure functions of tensors (differentiable themselves).

rbf_affinity, K_ij = exp(-gamma d_ij), d_ij = |x_i - y_j|^2. With P = g * K:

    gx_i = -2 gamma sum_j P_ij (x_i - y_j) = -2 gamma (rowsum(P)_i x_i - (P y)_i)
    gy_j = -2 gamma (colsum(P)_j y_j - (P' x)_j)

and for y = None both with the symmetric Q = P + P'; dL/dgamma = -sum P d. The second forms cancel
for rows much closer to each other than to the centre, so the first ones are summed (to_rows).

rbf_affinity_loss, L = mean (K_S - K_T)^2, is the case g = 2 (K_S - K_T) / N^2 for the student; the
bandwidth moves both kernels: dL/dgamma = sum g (-d_S K_S + d_T K_T).

svd_rbf_loss, L = scale * sum (K_S - K_T)^2 with a = back[m] - front[n]:

    dL/da = -4 scale / beta * (K_S - K_T) K_S a,  g_back = sum_n dL/da,  g_front = -sum_m dL/da
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._distances import to_rows
from kdops._precision import in_double
from kdops.ops.rbf import reference


@in_double
def rbf_affinity_backward(
    grad: Tensor, x: Tensor, y: Tensor | None, gamma: Tensor | None, value: float, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cotangents of x (B, N, D), y (B, M, D) and gamma (B,); empty for y or gamma that are None.

    `value` is the bandwidth where gamma is None. K, which the kernels get as a last argument, is
    made again: it is a function of x, y and gamma, and differentiated as such.
    """
    bandwidth = value if gamma is None else gamma[:, None, None]
    itself = torch.eye(x.shape[-2], dtype=torch.bool, device=x.device) if y is None else None
    exponents = reference.exponents(x, x if y is None else y, itself, bandwidth)
    weights = grad * torch.exp(-exponents)
    if y is None:
        gx, gy = -bandwidth * to_rows(weights + weights.mT, x, x), x.new_zeros(0)
    else:
        gx, gy = -bandwidth * to_rows(weights, x, y), -bandwidth * to_rows(weights.mT, y, x)
    if gamma is None:
        return gx, gy, x.new_zeros(0)
    return gx, gy, -(grad * decay(exponents)).sum((-1, -2)) / gamma


@in_double
def rbf_affinity_loss_and_gradient(
    student: Tensor, teacher: Tensor, gamma: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, gradient for the student, gradient for gamma), one block of rows at a time."""
    n = student.shape[0]
    total = student.sum() * 0
    g_gamma = student.sum() * 0
    g_student = [student[:0]]
    for block, itself in reference.blocks_of_pairs(n, student.device):
        p = reference.exponents(student[block], student, itself, gamma)
        q = reference.exponents(teacher[block], teacher, itself, gamma)
        difference = reference.gaussian_difference(p, q)
        k_s = torch.exp(-p)
        total = total + difference.square().sum()
        g_gamma = g_gamma + (difference * (decay(q) - decay(p))).sum() / gamma
        # row i meets every pair (i, j) and (j, i): twice the sum over j
        g_student.append(-gamma * to_rows(difference * k_s, student[block], student))
    pairs = max(n * n, 1)
    return total / pairs, torch.cat(g_student) * (4 / pairs), g_gamma * (2 / pairs)


def decay(p: Tensor) -> Tensor:
    """p exp(-p), 0 at p = Inf."""
    p = p.clamp(max=1e30)
    return p * torch.exp(-p)


def svd_rbf_loss_and_gradient(
    student_front: Tensor,
    student_back: Tensor,
    teacher_front: Tensor,
    teacher_back: Tensor,
    beta: float,
    variant: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, gradient for student_front, gradient for student_back), a few items at a time."""
    inputs = (student_front, student_back, teacher_front, teacher_back)
    items = [t.mT.flatten(0, 1) for t in inputs]
    total = student_front.sum() * 0 + student_back.sum() * 0
    g_fronts, g_backs = [items[0][:0]], [items[1][:0]]
    for front_s, back_s, front_t, back_t in reference.chunks(*items):
        p, q = reference.outer_exponents(front_s, back_s, front_t, back_t, beta)
        difference = reference.gaussian_difference(p, q)
        total = total + difference.square().sum()
        pull = difference * torch.exp(-p) * (back_s.unsqueeze(2) - front_s.unsqueeze(1))
        g_fronts.append(pull.sum(1))
        g_backs.append(pull.sum(2))
    g_front = torch.cat(g_fronts).view_as(student_front.mT).mT * (4 / beta)
    g_back = torch.cat(g_backs).view_as(student_back.mT).mT * (-4 / beta)
    loss, g_front, g_back = (
        reference.scaled(x, student_front, variant) for x in (total, g_front, g_back)
    )
    return loss, g_front, g_back
