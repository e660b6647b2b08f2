"""Knowledge distillation from a stronger teacher, DIST (Huang et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops.distillers._base import outside_autocast
from kdops.distillers._masks import Mask
from kdops.distillers._standard import pearson
from kdops.distillers.soft_target import LogitDistiller
from kdops.distributed import over_group


class DIST(LogitDistiller):
    """L = τ² [β (1 - mean Pearson of the rows) + γ (1 - mean Pearson of the columns)].

    Rows and columns of softmax(z / τ) (B, classes): the relations between the classes of a sample
    and between the samples of a class. Every valid position of maps and tokens is a row. τ 4,
    β = γ = 1. A constant row or column has correlation 0: with one sample the columns add γ τ².
    group: columns over the global batch of a torch.distributed group.
    Differs from the authors' code and mmrazor, which add 1e-8 to the product of the norms: eps=1e-8
    gives their number (up to 1e-6 away at many classes); from theirs and torchdistill's τ = 1.
    """

    paper = "Huang et al. 2022"

    def __init__(
        self,
        temperature: float = 4.0,
        *,
        inter_weight: float = 1.0,
        intra_weight: float = 1.0,
        eps: float = 0.0,
        group: Any = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(layout=layout)
        if temperature <= 0:
            raise ValueError(f"DIST: the temperature must be positive, got {temperature}")
        self.temperature, self.eps, self.group = float(temperature), float(eps), group
        self.inter_weight, self.intra_weight = float(inter_weight), float(intra_weight)

    def forward(self, student: Tensor, teacher: Tensor, *, mask: Mask = None) -> Tensor:
        s, t = (over_group(z, self.group) for z in self.class_rows(student, teacher, mask))
        if not s.numel():
            return s.sum()
        with outside_autocast(s):
            p_s, p_t = (torch.softmax(z / self.temperature, 1) for z in (s, t))
            inter = 1 - pearson(p_s, p_t, self.eps).mean()
            intra = 1 - pearson(p_s.mT, p_t.mT, self.eps).mean()
            both = self.inter_weight * inter + self.intra_weight * intra
        return self.temperature**2 * both
