"""Channel-wise knowledge distillation for dense prediction (Shu et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from kdops.distillers._base import Levels, mean
from kdops.distillers._connectors import ConnectedDistiller, pooled_pairs
from kdops.distillers._masks import Mask, hidden, level_masks
from kdops.distillers.soft_target import divergence


class CWD(ConnectedDistiller):
    """L = τ² / (B C) Σ_bc KL(softmax(t_bc / τ) || softmax(s_bc / τ)), softmax over the positions.

    Where a channel is active, not how much. Maps (B, C, *S) or tokens; the larger map is
    average-pooled; unequal channels need a connector: from_sample, or student_channels and
    teacher_channels. τ 4.
    Differs from mmrazor in its default τ = 1, and in that it takes maps of equal size only.
    """

    takes = ("map", "tokens")
    channels_rule, positions_rule = "equal or connector", "pooled"
    paper = "Shu et al. 2021"

    def __init__(
        self,
        student_channels: int | Sequence[int] | None = None,
        teacher_channels: int | Sequence[int] | None = None,
        *,
        temperature: float = 4.0,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(student_channels, teacher_channels, weights=weights, layout=layout)
        if temperature <= 0:
            raise ValueError(f"CWD: the temperature must be positive, got {temperature}")
        self.temperature = float(temperature)

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs)
        masks = level_masks(self.name, mask, [s for s, _ in pairs])
        terms = []
        for m, pair in zip(masks, pooled_pairs(self.name, self.connect(pairs)), strict=True):
            log_s, log_t = (
                F.log_softmax(hidden(x.flatten(2) / self.temperature, m), 2) for x in pair
            )
            terms.append(mean(divergence(log_s, log_t, 2)))
        return self.temperature**2 * self.total(terms)
