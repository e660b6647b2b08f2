"""What several methods make of rows and columns: z-scores, correlations, gaps of Gram matrices.

All are zero-safe: a row or column without spread becomes zero and has zero gradient, and a
published epsilon never turns into a gradient of 1 / epsilon.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._maths import safe_norm
from kdops.distillers._base import unit


def largest_at_hand(numbers: Tensor) -> int:
    """The largest of some integers; 0 where to ask would wait for a device or break a graph."""
    asked = numbers.device.type == "cpu" and not torch.compiler.is_compiling()
    return int(numbers.max()) if asked and numbers.numel() else 0


def standardised(x: Tensor, dim: int, *, eps: float, correction: int) -> Tensor:
    """(x - mean) / (std + eps) along dim; correction: 1 for the unbiased std, else 0."""
    x = x - x.mean(dim, keepdim=True)
    count = max(x.shape[dim] - correction, 1)
    deviation = safe_norm(x, dim).unsqueeze(dim) / count**0.5
    spread = deviation > 0
    safe = torch.where(spread, deviation, torch.ones_like(deviation))
    return x * torch.where(spread, 1 / (safe + eps), deviation)  # NaN stays NaN


def pearson(x: Tensor, y: Tensor, eps: float = 0.0) -> Tensor:
    """The correlation of every row of x (N, D) with that of y; (N,), 0 for a constant row.

    eps: what some codes add to the product of the two norms.
    """
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    cosine = (unit(x, 1) * unit(y, 1)).sum(1)
    if not eps:
        return cosine
    product = safe_norm(x, 1) * safe_norm(y, 1)
    return cosine * (product / (product + eps))


def gram_gap(x: Tensor, y: Tensor) -> Tensor:
    """‖x xᵀ - y yᵀ‖_F² for x, y (N, D), through the smaller of N x N and D x D.

    With d = x - y and e = x + y the difference is (d eᵀ + e dᵀ) / 2, which does not cancel where
    x is near y; its squared norm is (<dᵀd, eᵀe> + <eᵀd, dᵀe>) / 2.
    """
    d, e = x - y, x + y
    if x.shape[0] <= x.shape[1]:
        half = d @ e.mT
        return (0.5 * (half + half.mT)).square().sum()
    mixed = e.mT @ d
    return 0.5 * (((d.mT @ d) * (e.mT @ e)).sum() + (mixed * mixed.mT).sum())
