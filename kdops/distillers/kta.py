"""Kernel alignment (Cristianini et al. 2001) of every channel with its counterpart."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.linalg import vector_norm

from kdops.distillers._base import Levels, mean, outside_autocast
from kdops.distillers._connectors import ConnectedDistiller, pooled_pairs
from kdops.distillers._masks import Mask, level_masks


class KTA(ConnectedDistiller):
    """L = mean_b Σ_c ‖s sᵀ - t tᵀ‖_F / L, s and t channel c of student and teacher as unit vectors.

    The norm is sqrt(2 (1 - (s·t)²)) = ‖s - t‖ ‖s + t‖ / √2, without a matrix of L x L positions.
    Maps (B, C, *S) or tokens; the larger map is average-pooled. Channels must agree, or connectors
    do it (student_channels and teacher_channels, or from_sample). Summed over levels.
    A channel of zeros has the matrix zero and no gradient; one equal to its counterpart, neither.
    """

    takes = ("map", "tokens")
    channels_rule = "equal or connector"
    positions_rule = "pooled"
    paper = "Cristianini et al. 2001"

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs)
        masks = level_masks(self.name, mask, [s for s, _ in pairs])
        with outside_autocast(pairs[0][0]):
            levels = pooled_pairs(self.name, self.connect(pairs))
            return self.total(
                [
                    _level(s.flatten(2), t.flatten(2), m)
                    for (s, t), m in zip(levels, masks, strict=True)
                ]
            )


def _level(s: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
    s, t = _unit(s), _unit(t)
    norms = vector_norm(s - t, dim=2) * vector_norm(s + t, dim=2) / math.sqrt(2)
    alone = (s.detach() == 0).all(2) ^ (t == 0).all(2)  # then it is that of the other's matrix
    sums = torch.where(alone, torch.ones_like(norms), norms).sum(1)
    length = s.shape[2] if mask is None else mask.sum(1).clamp_min(1).to(s.dtype)
    return mean(sums / length)


def _unit(x: Tensor) -> Tensor:
    """Channels (B, C, L) over their norms, in a few passes; of zero, with zero gradient, zero."""
    largest = vector_norm(x.detach(), torch.inf, dim=2, keepdim=True)
    x = x / torch.where(largest == 0, 1.0, largest)  # squares neither over- nor underflow now
    norm = vector_norm(x, dim=2, keepdim=True)
    return x / torch.where(norm == 0, 1.0, norm)
