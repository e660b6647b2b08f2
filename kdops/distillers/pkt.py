"""Probabilistic knowledge transfer, PKT (Passalis and Tefas 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdops.distillers._relations import BatchRelation
from kdops.ops.similarity_kl import pkt_loss


class PKT(BatchRelation):
    """L = mean over B² of p_T log((p_T + ε) / (p_S + ε)), p the rows of c = (x̂ x̂ᵀ + 1) / 2 over
    their sums, x̂ = x / (‖x‖ + 1e-7), x the flattened features of a sample.

    Features of any shapes; student and teacher may differ. ε 1e-7; summed over levels.
    group: similarities over the global batch of a torch.distributed group ("world": the default
    one; scaling: see kdops.distributed). Differs from published code in memory, O(B D) instead of
    five B x B matrices, and at a zero row, whose gradient is NaN there and zero here.
    """

    paper = "Passalis and Tefas 2018"
    default_weight = 3e4

    def __init__(
        self,
        epsilon: float = 1e-7,
        *,
        group: Any = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        if not epsilon > 0:
            raise ValueError(f"PKT: epsilon must be positive, got {epsilon}")
        self.epsilon, self.group = float(epsilon), group

    def _level(self, student: Tensor, teacher: Tensor) -> Tensor:
        return pkt_loss(student, teacher, epsilon=self.epsilon)
