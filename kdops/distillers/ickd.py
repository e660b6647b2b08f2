"""Inter-channel correlation knowledge distillation (Liu et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._unit_rows import safe_root
from kdops.distillers._base import (
    Levels,
    outside_autocast,
    samples,
    unit,
)
from kdops.distillers._connectors import ConnectedDistiller, pooled_pairs
from kdops.distillers._masks import Mask
from kdops.ops.gram import gram


class ICKD(ConnectedDistiller):
    """L = ‖Ĝ_S - Ĝ_T‖_F² / (C B²), G = F Fᵀ (C x C) per sample, its rows L2-normalised.

    Maps (B, C, *S) or tokens; the larger map is average-pooled. Channels must agree, or connectors
    do it (student_channels and teacher_channels, or from_sample). Summed over levels.
    With L < C positions nothing of size C x C is made: everything is L x L products.
    Published training multiplies it by 2.5. A channel of zeros has a row of zeros, which
    passes no gradient.
    """

    takes = ("map", "tokens")
    channels_rule = "equal or connector"
    positions_rule = "pooled"
    paper = "Liu et al. 2021"
    default_weight = 2.5

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs)
        with outside_autocast(pairs[0][0]):
            terms = []
            for s, t in pooled_pairs(self.name, self.connect(pairs)):
                s, t = (_scaled(x.flatten(2)) for x in (s, t))
                squares = _by_positions(s, t) if s.shape[2] < s.shape[1] else _by_channels(s, t)
                terms.append(squares.sum() / (s.shape[1] * samples(s) ** 2))
            return self.total(terms)


def _scaled(f: Tensor) -> Tensor:
    """Samples (B, C, L) of size one, in which fourth powers neither over- nor underflow."""
    largest = f.detach().abs().amax((1, 2), keepdim=True)
    return f / torch.where(largest > 0, largest, torch.ones_like(largest))


def _by_channels(s: Tensor, t: Tensor) -> Tensor:
    return (unit(s @ s.mT, 2) - unit(t @ t.mT, 2)).square()


def _by_positions(s: Tensor, t: Tensor) -> Tensor:
    """Σ_i |Ĝ_S,i - Ĝ_T,i|² (B,) from L x L products.

    Row i of Ĝ_S is S a_i with a_i = s_i / |S s_i|, that of Ĝ_T is T b_i. With E = S - T and
    c = a - b, S a - T b = E a + T c, whose square keeps its digits where S and T are alike; summed
    over the rows, <EᵀE, AᵀA> + 2 <EᵀT, AᵀC> + <TᵀT, CᵀC>.
    """
    e = s - t
    ee, et, tt = _products(e, e), _products(e, t), _products(t, t)
    a, b = s * _inverse_norms(s, ee + et + et.mT + tt), t * _inverse_norms(t, tt)
    c = a - b
    sums = ee * _products(a, a) + 2 * et * _products(a, c) + tt * _products(c, c)
    return sums.sum((1, 2))


def _products(x: Tensor, y: Tensor) -> Tensor:
    """XᵀY (B, L, L)"""
    return gram(x.mT, None if x is y else y.mT) * x.shape[1]


def _inverse_norms(f: Tensor, products: Tensor) -> Tensor:
    """1 / |F f_i| (B, C, 1) of every row, 0 with zero gradient where it is zero."""
    return safe_root((f @ products * f).sum(2, keepdim=True))[1]
