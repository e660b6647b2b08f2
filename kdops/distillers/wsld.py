"""Weighted soft labels, rethinking soft labels (Zhou et al. 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdops.distillers._masks import Mask
from kdops.distillers.soft_target import LogitDistiller, over_labels


class WSLD(LogitDistiller):
    """L = τ² mean_b (1 - exp(-CE_S / (CE_T + 1e-7))) · (-Σ_c p_T log p_S), p = softmax(z / τ).

    CE_S and CE_T are the cross-entropies of student and teacher with the sample's class, without
    temperature and as constants: what the student knows already weighs little. target: class
    indices, needed; those below 0 are left out. Of maps and tokens the mean over samples and
    positions. τ 2, published weight 2.5. The soft term is a cross-entropy, not a divergence: its
    minimum is the teacher's entropy.
    Differs from mmrazor in its default τ = 1, and in that a teacher without mass at a class adds
    nothing there, where the code has 0 · ∞.
    """

    paper = "Zhou et al. 2021"
    default_weight = 2.5
    needs = ("target",)

    def __init__(self, temperature: float = 2.0, *, layout: str | None = None) -> None:
        super().__init__(layout=layout)
        if temperature <= 0:
            raise ValueError(f"WSLD: the temperature must be positive, got {temperature}")
        self.temperature = float(temperature)

    def forward(
        self, student: Tensor, teacher: Tensor, target: Tensor | None = None, *, mask: Mask = None
    ) -> Tensor:
        s, t = self.class_rows(student, teacher, mask)
        labels = self.labels(student, target, mask)
        own = labels.clamp_min(0).unsqueeze(1)
        with torch.no_grad():
            hard_s, hard_t = (-F.log_softmax(z, 1).gather(1, own).squeeze(1) for z in (s, t))
            weight = 1 - torch.exp(-hard_s / (hard_t + 1e-7))
        p_t = torch.softmax(t / self.temperature, 1)
        log_s = F.log_softmax(s / self.temperature, 1)
        soft = -(p_t * torch.where(p_t == 0, torch.zeros_like(log_s), log_s)).sum(1)
        return self.temperature**2 * over_labels(weight * soft, labels)
