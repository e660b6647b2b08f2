"""Gradient of the gram room: pure functions of tensors, differentiable themselves.

G = X Yᵀ / L gives, for a cotangent dG, dX = dG Y / L and dY = dGᵀ X / L. With Y = X both terms fall
on X: dX = (dG + dGᵀ) X / L.

The Gram losses are c f(D) with D = G_S - G_T, so that the cotangent of G_S is P = c df/dD: 2 c D
for squares; for column norms P_j = c D_j / |D_j|, zero where the column is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._maths import at_least_one, safe_norm
from kdops.ops.gram import reference


def gram_backward(grad: Tensor, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cotangents of x (B, C1, *S) and y (B, C2, *S); the second is empty when y is None."""
    if y is None:
        return _product(grad + grad.mT, x, x), x.new_zeros(0)
    return _product(grad, y, x), _product(grad.mT, x, y)


def _product(grad: Tensor, maps: Tensor, like: Tensor) -> Tensor:
    """A matrix (B, C, C') times maps (B, C', *S) by the positions, of the shape of `like`."""
    flat = maps.flatten(2)
    return (grad @ flat).reshape(like.shape) / at_least_one(flat.shape[2])


def gram_loss_gradients(
    x1: Tensor, x2: Tensor | None, y1: Tensor, y2: Tensor | None, variant: int
) -> tuple[Tensor, Tensor]:
    """Cotangents of x1 and x2 (empty when x2 is None) for a unit cotangent of the loss."""
    difference = reference.gram(x1, x2) - reference.gram(y1, y2)
    if variant == reference.COLUMNS:
        norm = safe_norm(difference, 1).unsqueeze(1)
        zero = norm == 0
        pull = torch.where(zero, difference * 0, difference / torch.where(zero, 1, norm))
    else:
        pull = 2 * difference
    return gram_backward(pull / reference.divisor(difference, variant), x1, x2)


def nst_gradient(student: Tensor, teacher: Tensor) -> Tensor:
    """Cotangent of student (B, C, *S) for a unit cotangent of reference.nst_loss."""
    X, norm, scale = reference.unit_channels(student)
    Y = reference.normalised_channels(teacher)
    G = 2 * gram_loss_gradients(X.mT, None, Y.mT, None, reference.PAPER)[0].mT
    across = (G - X * (X * G).sum(2, keepdim=True)) / norm * scale
    dead = (X == 0).all(2, keepdim=True)
    return torch.where(dead, across * 0, across).reshape(student.shape)
