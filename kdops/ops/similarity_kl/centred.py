"""Rows as the GPU kernels compare them: centred, in double, and the gradient's way back.

A softmax does not change when all its logits move together. So the logits <x_i, y_j> may be
<x_i - c, y_j - c> + <y_j - c, c> with any c, whose second part is a bias of the key. Where all rows
lie close to their mean c, that is what keeps the digits of their differences. The CPU kernels do
the same in csrc/similarity_kl/rows.h.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdops._unit_rows import unit_and_inverse


class Network:
    """One network's rows (B, N, D) and keys (B, M, D), which may be the rows, as they are compared,
    in double: minus `centre` (B, 1, D), their mean where that is most of them; then logits have a
    bias (B, M). A logit is rate <x_i, y_j> + bias_j, a logarithm to base two."""

    def __init__(
        self, rows: Tensor, keys: Tensor | None, mask: Tensor | None, scale: float, cosine: bool
    ) -> None:
        self.mask, self.scale, self.cosine = mask, scale, cosine
        self.rate = scale * math.log2(math.e)
        inside = None if mask is None else mask.unsqueeze(-1)
        given = rows.double().contiguous()
        x, self.inverse = _compared(given if inside is None else given.where(inside, 0.0), cosine)
        y, self.keys_inverse = (x, None)
        if keys is not None:
            y, self.keys_inverse = _compared(keys.double().contiguous(), cosine)
        lengths = [r.square().sum(-1).amax(1).sqrt() for r in (x, y)]
        self.largest_logit = abs(scale) * lengths[0] * lengths[1]
        padded = keys is None and inside is not None
        self.centre = _centre(y, inside if padded else None)
        self.rows = x - self.centre if inside is None else (x - self.centre).where(inside, 0.0)
        self.keys = self.rows if keys is None else y - self.centre
        self.bias = self.rate * (self.keys * self.centre).sum(-1)
        self.absent = None if not padded else ~mask  # type: ignore[operator]

    def biases(self, dtype: torch.dtype, far: float) -> Tensor:
        """(B, M), `far` for keys that are padding."""
        bias = self.bias.to(dtype)
        return bias if self.absent is None else bias.masked_fill(self.absent, far)

    def gradient(
        self, pulled: Tensor, totals: Tensor, centred: Tensor, inverse: Tensor | None
    ) -> Tensor:
        """Of rows as they were given, from sum_j w_ij (y_j - centre) and sum_j w_ij. A unit row's
        own direction has no part: the centre is the row itself minus its centred form."""
        if inverse is None:
            return pulled + totals * self.centre
        moved, unit = pulled - totals * centred, centred + self.centre
        return (moved - (moved * unit).sum(-1, keepdim=True) * unit) * inverse


def _compared(x: Tensor, cosine: bool) -> tuple[Tensor, Tensor | None]:
    """Rows as they are compared, and for unit rows 1 / norm."""
    return unit_and_inverse(x) if cosine else (x, None)


def _centre(y: Tensor, inside: Tensor | None) -> Tensor:
    """The mean of the rows that count (padding is zero); zero where it is a small part of them."""
    count = y.shape[1] if inside is None else inside.sum(1, keepdim=True).clamp(min=1)
    mean = y.sum(1, keepdim=True) / count
    square = mean.square().sum(-1, keepdim=True)
    most = square >= 0.75 * y.square().sum((1, 2), keepdim=True) / count
    return torch.where(most & square.isfinite(), mean, 0.0)
