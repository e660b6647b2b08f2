"""Multi-level logit distillation (Jin et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdops.distillers._base import outside_autocast
from kdops.distillers._masks import Mask
from kdops.distillers._standard import gram_gap
from kdops.distillers.soft_target import LogitDistiller, divergence
from kdops.distributed import over_group


class MLKD(LogitDistiller):
    """L = Σ_T [T² KL(P_T || P_S) + ‖Δ PᵀP‖_F² / classes + ‖Δ PPᵀ‖_F² / B], P = softmax(z / T).

    Instances, classes and the batch, each at several temperatures: T = 4 and those of others, 2, 3,
    5 and 6 as published; others=() for T alone. Every valid position of maps and tokens is a row of
    P. The Gram matrices are compared through the smaller of B x B and classes x classes.
    group: classes and batch over the global batch of a torch.distributed group.
    Differs from the authors' code, which adds the terms of a weakly and of a strongly augmented
    view and scales those of the weak one by the share of samples (classes) below the teacher's
    median confidence, 0.5: for two views call the method on each.
    """

    paper = "Jin et al. 2023"

    def __init__(
        self,
        temperature: float = 4.0,
        *,
        others: Sequence[float] = (2.0, 3.0, 5.0, 6.0),
        group: Any = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(layout=layout)
        self.temperatures, self.group = tuple(map(float, (temperature, *others))), group
        if min(self.temperatures) <= 0:
            raise ValueError(f"MLKD: temperatures must be positive, got {self.temperatures}")

    def forward(self, student: Tensor, teacher: Tensor, *, mask: Mask = None) -> Tensor:
        s, t = (over_group(z, self.group) for z in self.class_rows(student, teacher, mask))
        if not s.numel():
            return s.sum()
        loss = s.new_zeros(())
        with outside_autocast(s):
            for temperature in self.temperatures:
                log_s, log_t = F.log_softmax(s / temperature, 1), F.log_softmax(t / temperature, 1)
                p_s, p_t = log_s.exp(), log_t.exp()
                loss = loss + temperature**2 * divergence(log_s, log_t, 1).mean()
                loss = loss + gram_gap(p_s.mT, p_t.mT) / s.shape[1] + gram_gap(p_s, p_t) / len(s)
        return loss
