"""The margin of Overhaul, m_c = E[x | x < 0] per channel: from BatchNorm layers or from data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def batch_norm_margin(norm: nn.Module) -> Tensor:
    """m_c = E[x | x < 0] for x ~ N(β_c, γ_c²), the output of a BatchNorm layer; (C,)."""
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        raise ValueError(f"Overhaul: expected an affine BatchNorm, got {type(norm).__name__}")
    gamma, beta = weight.detach().double().abs(), bias.detach().double()
    ratio = beta / torch.where(gamma > 0, gamma, torch.ones_like(gamma))
    below = torch.special.ndtr(-ratio)
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    usual = beta - gamma * density / below.clamp_min(1e-3)
    margin = torch.where(below > 1e-3, usual, -3 * gamma)
    # A channel with γ = 0 is the constant β: its mean given x < 0 is β or does not exist.
    return torch.where(gamma > 0, margin, beta.clamp_max(0)).to(weight.dtype)


def negative_means(batches: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """Mean of the negative entries per channel and level, zero where there are none."""
    sums: list[Tensor] = []
    counts: list[Tensor] = []
    for batch in batches:
        rows = [x.transpose(0, 1).flatten(1) for x in batch]
        sums = sums or [x.new_zeros(x.shape[0]) for x in rows]
        counts = counts or [x.new_zeros(x.shape[0]) for x in rows]
        sums = [a + x.clamp_max(0).sum(1) for a, x in zip(sums, rows, strict=True)]
        counts = [a + (x < 0).sum(1) for a, x in zip(counts, rows, strict=True)]
    if not sums:
        raise ValueError("Overhaul.prepare: no batches")
    return [a / c.clamp_min(1) for a, c in zip(sums, counts, strict=True)]
