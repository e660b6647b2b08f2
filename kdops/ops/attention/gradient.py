"""Gradient of the attention map: a pure function of tensors, differentiable itself.

Q_l = Σ_c |x_cl|^p gives dx_cl = dQ_l p |x_cl|^(p-1) sign(x_cl), zero at x = 0 for every p; for the
maximum over c only the first largest channel receives it.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
