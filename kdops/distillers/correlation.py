"""Correlation congruence (Peng et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdops.distillers._base import mean, unit
from kdops.distillers._relations import BatchRelation
from kdops.ops.rbf import rbf_affinity_loss


class CC(BatchRelation):
    """L = mean_ij (K_S - K_T)², K the similarities of the samples of a batch, widths may differ.

    kernel="gaussian": rows L2-normalised, K = e^{-2γ} Σ_{p=0..P} (2γ)^p / p! (x̂ x̂ᵀ)^p entry by
    entry, the Taylor series of exp(-γ |x̂ - ŷ|²), γ .4, P 2. exact=True: the Gaussian itself,
    through rbf_affinity_loss, which stores no B x B matrix. kernel="bilinear": K = x xᵀ of the rows
    as they are. Maps and tokens are flattened.
    group: similarities over the global batch of a torch.distributed group.
    Differs from torchdistill, which does not normalise the rows and takes the norm of K_S - K_T
    over B² (not its square); RepDistiller's "Correlation" is another loss: the mean over
    neighbouring samples of Σ |f_S - f_T|_i |f_S - f_T|_{i+1}.
    """

    paper = "Peng et al. 2019"

    def __init__(
        self,
        gamma: float = 0.4,
        order: int = 2,
        *,
        kernel: str = "gaussian",
        exact: bool = False,
        group: Any = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        if kernel not in ("gaussian", "bilinear") or (exact and kernel == "bilinear"):
            raise ValueError(f"CC: kernel is 'gaussian' or 'bilinear' (not exact), got {kernel!r}")
        if gamma <= 0 or order < 1:
            raise ValueError(f"CC: gamma is positive and order 1 or more, got {gamma}, {order}")
        self.gamma, self.order = float(gamma), int(order)
        self.kernel, self.exact, self.group = kernel, exact, group

    def _level(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.exact:
            return rbf_affinity_loss(unit(student, 1), unit(teacher, 1), gamma=self.gamma)
        return mean((self._similarities(student) - self._similarities(teacher)).square())

    def _similarities(self, x: Tensor) -> Tensor:
        if self.kernel == "bilinear":
            return x @ x.mT
        cosine = unit(x, 1)
        cosine = cosine @ cosine.mT
        series = torch.zeros_like(cosine)
        for p in range(self.order, 0, -1):  # Horner
            series = (series + (2 * self.gamma) ** p / math.factorial(p)) * cosine
        return math.exp(-2 * self.gamma) * (series + 1)
