"""Procrustes distance between the samples of student and teacher (Bhattarai et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdops.distillers._base import unit
from kdops.distillers._relations import BatchRelation
from kdops.ops.svd import batched_nuclear_norm
from kdops.ops.token_gram.cka import prepared


class Procrustes(BatchRelation):
    """L = 2 - 2 ‖AᵀB‖_*, A (N x D) and B (N x D') the samples' features, centred and divided by
    their Frobenius norms: the squared distance that the best rotation leaves.

    Features of any shapes, one row a sample; D and D' may differ. Summed over levels. The gradient
    is the polar factor of AᵀB, finite where singular values are zero or equal.
    group: over the global batch of a torch.distributed group ("world": the default one; scaling:
    see kdops.distributed). A batch without variance has L = 2 and no gradient.
    """

    paper = "Bhattarai et al. 2025"

    def __init__(
        self,
        *,
        group: Any = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.group = group

    def _level(self, student: Tensor, teacher: Tensor) -> Tensor:
        if len(student) == 0:
            return student.sum()
        pair = (student, teacher)
        a, b = (unit(prepared(x, None, True).flatten(), 0).view_as(x) for x in pair)
        if b.shape[1] > b.shape[0]:
            # Bᵀ = Q R, and Q does not count: AᵀB has the singular values of Aᵀ Rᵀ, D x N
            b = torch.linalg.qr(b.mT, mode="r")[1].mT
        return 2 - 2 * batched_nuclear_norm(a.mT @ b)
