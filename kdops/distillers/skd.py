"""The direction-wise term of streamlined knowledge distillation (Jeong et al. 2026)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops._maths import safe_norm
from kdops.distillers._base import mean, outside_autocast, unit
from kdops.distillers._masks import Mask
from kdops.distillers.soft_target import LogitDistiller
from kdops.distributed import over_group


class SKDDirection(LogitDistiller):
    """L = mean_i sqrt(D_iᵀ Σ⁻¹ D_i), D = ẑ_S ẑ_Sᵀ - ẑ_T ẑ_Tᵀ (B x B), Σ = cov(D) + λ I.

    ẑ: logits with L2-normalised rows; cov between the columns of D, unbiased. λ .1. The published
    method adds SoftTarget, its instance-wise term. Every valid position of maps and tokens is a row
    (B x B grows with them). A sample whose similarities agree has zero gradient; a batch of one
    costs 0.
    group: over the global batch of a torch.distributed group.
    variant="code": the matrices over the number of classes, as the authors' code has them, which
    also multiplies by the share of classes below the median confidence (about .5), ours does not.
    """

    paper = "Jeong et al. 2026"

    def __init__(
        self,
        tikhonov: float = 0.1,
        *,
        variant: str = "paper",
        group: Any = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(layout=layout)
        if tikhonov <= 0:
            raise ValueError(f"SKDDirection: tikhonov must be positive, got {tikhonov}")
        if variant not in ("paper", "code"):
            raise ValueError(f"SKDDirection: variant is 'paper' or 'code', got {variant!r}")
        self.tikhonov, self.variant, self.group = float(tikhonov), variant, group

    def forward(self, student: Tensor, teacher: Tensor, *, mask: Mask = None) -> Tensor:
        s, t = (over_group(z, self.group) for z in self.class_rows(student, teacher, mask))
        with outside_autocast(s):
            z_s, z_t = unit(s, 1), unit(t, 1)
            gap = z_s @ z_s.mT - z_t @ z_t.mT
            if self.variant == "code":
                gap = gap / s.shape[1]
            if len(gap) < 2:  # no covariance; a normalised row alone is like any other
                return gap.sum() * 0
            spread = gap - gap.mean(0, keepdim=True)
            covariance = spread.mT @ spread / (len(gap) - 1)
            eye = torch.eye(len(gap), dtype=gap.dtype, device=gap.device)
            root, _ = torch.linalg.cholesky_ex(covariance + self.tikhonov * eye)  # NaN passes
            whitened = torch.linalg.solve_triangular(root, gap.mT, upper=False)
            return mean(safe_norm(whitened, 0))
