"""Gradient of the gram room: pure functions of tensors, differentiable themselves.

G = s X Yᵀ gives, for a cotangent dG, dX = s dG Y and dY = s dGᵀ X. With Y = X both terms fall on X:
dX = s (dG + dGᵀ) X.
"""

from __future__ import annotations

from torch import Tensor


def gram_backward(grad: Tensor, x: Tensor, y: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Cotangents of x (B, C1, L) and y (B, C2, L); the second is empty when y is None."""
    if y is None:
        return ((grad + grad.mT) @ x) * scale, x.new_zeros(0)
    return (grad @ y) * scale, (grad.mT @ x) * scale
