"""DarkRank (Chen et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdops.distillers._base import mean, unit
from kdops.distillers._relations import BatchRelation
from kdops.ops.relation import pairwise_distance


class DarkRank(BatchRelation):
    """Hard DarkRank: the likelihood of the teacher's ranking of every sample's neighbours.

    Scores S_ij = -α |x_i - x_j|^β; π_1, π_2, ... the samples other than i in the teacher's order,
    nearest first; L = -mean_i Σ_{k <= length} (S_iπ_k - log Σ_{k <= l <= length} exp S_iπ_l).
    α 3, β 3, and the 4 nearest as in the published code (length=None: all). Embeddings, or maps and
    tokens flattened; widths may differ. The published networks L2-normalise their embeddings: so do
    normalize=True. group: over the global batch of a torch.distributed group.
    Differs from the published code at equal samples, whose distance is 0 here and 1e-6 there, and
    which never push out the sample itself.
    """

    paper = "Chen et al. 2018"

    def __init__(
        self,
        alpha: float = 3.0,
        beta: float = 3.0,
        *,
        length: int | None = 4,
        normalize: bool = False,
        group: Any = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        if length is not None and length < 2:
            raise ValueError(f"DarkRank: length is 2 or more, or None for all, got {length}")
        self.alpha, self.beta, self.length = float(alpha), float(beta), length
        self.normalize, self.group = normalize, group

    def _level(self, student: Tensor, teacher: Tensor) -> Tensor:
        near_s, near_t = (
            pairwise_distance(unit(x, 1) if self.normalize else x) for x in (student, teacher)
        )
        if len(near_s) < 2:  # nobody to rank
            return near_s.sum()
        itself = torch.eye(len(near_t), dtype=torch.bool, device=near_t.device)
        order = near_t.masked_fill(itself, -1.0).argsort(dim=1, stable=True)
        order = order[:, 1:][:, : self.length]
        scores = -self.alpha * near_s.gather(1, order).pow(self.beta)
        rest = torch.logcumsumexp(scores.flip(1), 1).flip(1)
        return mean((rest - scores).sum(1))
