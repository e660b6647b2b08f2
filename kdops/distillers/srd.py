"""A simple recipe for distillation: the role of the projector (Miles and Mikolajczyk 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdops.distillers._base import Distiller, Levels
from kdops.distillers._connectors import apply, channel_lists
from kdops.distillers._masks import Mask, centroids, level_masks


class SRD(Distiller):
    """L = log Σ |f_S - f_T|^4 over the batch, f_S = BN(Linear(s)), f_T = BN(t).

    s, t: embeddings (B, D); maps and tokens are averaged over their positions. The normalisation
    has no affine part and eps 1e-4; the projector is trained. exponent 4. Where student and teacher
    agree, Σ is taken as the smallest normal number and the gradient is zero; a batch of one has
    nothing to normalise over in training and costs 0.
    Differs from torchdistill's SRDLoss, which adds KL to twice this term and has exponent 1 by
    default; from the authors' DeiT code, whose sum is over 1 - correlation of every channel.
    """

    channels_rule = "connector"
    paper = "Miles and Mikolajczyk 2024"

    def __init__(
        self,
        student_channels: int | Sequence[int],
        teacher_channels: int | Sequence[int],
        *,
        exponent: float = 4.0,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        if exponent < 1:
            raise ValueError(f"SRD: the exponent is 1 or more, got {exponent}")
        self.exponent = float(exponent)
        self.channels = channel_lists(self.name, student_channels, teacher_channels)
        self.projectors = nn.ModuleList(
            nn.Sequential(nn.Linear(a, b), _norm(b)) for a, b in self.channels
        )
        self.norms = nn.ModuleList(_norm(b) for _, b in self.channels)

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        masks = level_masks(self.name, mask, [s for s, _ in pairs])
        terms = []
        for i, (m, (s, t)) in enumerate(zip(masks, pairs, strict=True)):
            s, t = centroids(s, m), centroids(t, m)
            if len(s) < (2 if self.training else 1):
                terms.append(s.sum() * 0)
                continue
            f_s = apply(self.name, i, self.projectors[i], s)
            norm: Any = self.norms[i]
            f_t = norm(t.to(norm.running_mean.dtype)).to(f_s.dtype)
            terms.append(_log_power_sum(f_s - f_t, self.exponent))
        return self.total(terms)


def _norm(width: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(width, eps=1e-4, affine=False)


def _log_power_sum(x: Tensor, exponent: float) -> Tensor:
    """log Σ |x|^exponent, whose terms neither over- nor underflow all at once."""
    largest = x.detach().abs().max()
    equal = largest == 0
    largest = torch.where(equal, torch.ones_like(largest), largest)
    total = (x / largest).abs().pow(exponent).sum()
    safe = torch.where(equal, torch.full_like(total, torch.finfo(x.dtype).tiny), total)
    return safe.log() + exponent * largest.log()
