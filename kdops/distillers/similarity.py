"""Similarity-preserving knowledge distillation (Tung and Mori 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdops.distillers._base import Levels
from kdops.distillers._masks import Mask
from kdops.distillers._relations import BatchRelation
from kdops.ops.relation import similarity_loss


class SimilarityPreserving(BatchRelation):
    """SP: L = β · ‖Ĝ_T - Ĝ_S‖_F² / B², Ĝ = G = Q Qᵀ with L2-normalised rows, Q = flatten(F).

    Student and teacher features may have any shapes; β = 3000, summed over levels.
    group: similarities over the global batch of a torch.distributed group ("world": the default
    one; scaling: see kdops.distributed). Differs from one library that normalises rows by L1.
    """

    paper = "Tung and Mori 2019"

    def __init__(
        self,
        beta: float = 3000.0,
        *,
        group: Any = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.beta, self.group = float(beta), group

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        return self.beta * super().forward(student, teacher, mask=mask)

    def _level(self, student: Tensor, teacher: Tensor) -> Tensor:
        return similarity_loss(student, teacher)
