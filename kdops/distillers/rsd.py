"""Redundancy suppression distillation (2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdops.distillers._base import Levels, outside_autocast, shapes
from kdops.distillers._connectors import ConnectedDistiller
from kdops.distillers._masks import Mask
from kdops.distillers._standard import standardised
from kdops.distributed import over_group


class RSD(ConnectedDistiller):
    """L = Σ_i (C_ii - 1)² + κ Σ_{i != j} C_ij², C = XᵀY / B of the standardised columns X, Y.

    X, Y: student's and teacher's (B, D) minus their means over the batch, over (std + 1e-5), std
    the biased one. Every valid position of maps and tokens is a row of its channels. κ .01. Unequal
    widths need a connector (a 1x1 convolution): from_sample, or student_channels and
    teacher_channels. Σ_ij C_ij² comes from the smaller of D x D and B x B. A column without spread
    is zero and costs 1. group: over the global batch of a torch.distributed group.
    Differs from the authors' code in the projector, there an MLP of gamma times the width.
    """

    channels_rule, positions_rule = "equal or connector", "equal"
    padding = "valid"
    paper = "Zhang et al. 2025"

    def __init__(
        self,
        student_channels: int | Sequence[int] | None = None,
        teacher_channels: int | Sequence[int] | None = None,
        *,
        kappa: float = 0.01,
        group: Any = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(student_channels, teacher_channels, weights=weights, layout=layout)
        self.kappa, self.group = float(kappa), group

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.connect(self.pairs(student, teacher, mask))
        terms = []
        for i, pair in enumerate(pairs):
            if pair[0].shape[2:] != pair[1].shape[2:]:
                raise ValueError(
                    f"RSD: level {i}: every position is a row, so student and teacher need equal "
                    f"positions, got {shapes(*pair)}; pool the larger one, or tap pooled layers"
                )
            s, t = (over_group(x.movedim(1, -1).flatten(0, -2), self.group) for x in pair)
            with outside_autocast(s):
                terms.append(self._level(s, t) if s.numel() else s.sum())
        return self.total(terms)

    def _level(self, s: Tensor, t: Tensor) -> Tensor:
        x, y = (standardised(z, 0, eps=1e-5, correction=0) for z in (s, t))
        own = (x * y).mean(0)
        if len(x) < x.shape[1]:
            square = ((x @ x.mT) * (y @ y.mT)).sum() / len(x) ** 2
        else:
            square = (x.mT @ y / len(x)).square().sum()
        return (own - 1).square().sum() + self.kappa * (square - own.square().sum())
