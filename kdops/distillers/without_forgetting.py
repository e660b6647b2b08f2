"""Learning without forgetting (Li and Hoiem 2016)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdops.distillers._base import Levels, mean
from kdops.distillers._masks import Mask
from kdops.distillers.soft_target import LogitDistiller, check_logits


class LearningWithoutForgetting(LogitDistiller):
    """LwF: L = CE_new + λ Σ_heads mean_b -Σ_c y'_c log ŷ'_c.

    y' is the recorded response of the old network, ŷ' the current one, both raised to 1/T and
    renormalised, which is softmax(z / T). student: the logits of the old task's head, or a list of
    heads; teacher: the recorded logits on the same images. new_logits and target (optional) add
    the cross-entropy of the new task. T = 2, λ = 1. Old heads only; no T² factor, as in the paper.
    The loss is a cross-entropy: its minimum is the entropy of the recorded responses, not zero.
    """

    paper = "Li and Hoiem 2016"

    def __init__(
        self, temperature: float = 2.0, weight: float = 1.0, *, layout: str | None = None
    ) -> None:
        super().__init__(layout=layout)
        self.temperature, self.weight = float(temperature), float(weight)

    def inputs_from(self, features: Any, logits: Tensor | None) -> Any:
        return logits if features is None else features  # the old heads, where they are tapped

    def forward(
        self,
        student: Levels,
        teacher: Levels,
        new_logits: Tensor | None = None,
        target: Tensor | None = None,
        *,
        mask: Mask = None,
    ) -> Tensor:
        terms = []
        for z, recorded in self.pairs(student, teacher, mask):
            check_logits(self.name, z, recorded)
            y = torch.softmax(recorded / self.temperature, dim=1)
            terms.append(mean(-(y * F.log_softmax(z / self.temperature, dim=1)).sum(1)))
        old = self.weight * self.total(terms)
        if new_logits is None or target is None:
            return old
        return old + self.hard(new_logits, target, mask)
