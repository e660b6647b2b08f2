"""Gradient of the gram room: pure functions of tensors, differentiable themselves.

G = s X Yᵀ gives, for a cotangent dG, dX = s dG Y and dY = s dGᵀ X. With Y = X both terms fall on X:
dX = s (dG + dGᵀ) X.

The Gram losses are c f(D) with D = a X1 X2ᵀ - b Y1 Y2ᵀ, so that with P = c df/dD
    dX1 = a P X2,   dX2 = a Pᵀ X1;   for X2 = X1 both fall on X1: a (P + Pᵀ) X1.
P = 2 c D for squares; for column norms P_j = c D_j / |D_j|, zero where the column is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops.ops.gram import reference


def gram_backward(grad: Tensor, x: Tensor, y: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Cotangents of x (B, C1, *S) and y (B, C2, *S); the second is empty when y is None."""
    if y is None:
        return _product(grad + grad.mT, x, x) * scale, x.new_zeros(0)
    return _product(grad, y, x) * scale, _product(grad.mT, x, y) * scale


def _product(grad: Tensor, maps: Tensor, like: Tensor) -> Tensor:
    """A matrix (B, C, C') times maps (B, C', *S), of the shape of `like`."""
    return (grad @ maps.flatten(2)).reshape(like.shape)


def gram_loss_gradients(
    x1: Tensor,
    x2: Tensor | None,
    y1: Tensor,
    y2: Tensor | None,
    scale_s: float,
    scale_t: float,
    coefficient: float,
    columns: bool,
) -> tuple[Tensor, Tensor]:
    """Cotangents of x1 and x2 (empty when x2 is None) for a unit cotangent of the loss."""
    difference = reference.gram(x1, x2, scale_s) - reference.gram(y1, y2, scale_t)
    if columns:
        norm = reference.safe_norm(difference, 1).unsqueeze(1)
        zero = norm == 0
        pull = torch.where(zero, difference * 0, difference / torch.where(zero, 1, norm))
        pull = coefficient * pull
    else:
        pull = 2 * coefficient * difference
    return gram_backward(pull, x1, x2, scale_s)


def nst_gradient(student: Tensor, teacher: Tensor, coefficient: float) -> Tensor:
    """Cotangent of student (B, C, *S) for a unit cotangent of reference.nst_loss."""
    X, norm, scale = reference.unit_channels(student)
    Y = reference.normalised_channels(teacher)
    scales = 1 / X.shape[1], 1 / Y.shape[1]
    G = gram_loss_gradients(X.mT, None, Y.mT, None, *scales, coefficient, False)[0].mT
    across = (G - X * (X * G).sum(2, keepdim=True)) / norm * scale
    dead = (X == 0).all(2, keepdim=True)
    return torch.where(dead, across * 0, across).reshape(student.shape)
