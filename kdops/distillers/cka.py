"""Centred kernel alignment as a loss (Kornblith et al. 2019; RCKA: Zhou et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdops.distillers._relations import BatchRelation
from kdops.ops.token_gram import cka_loss


class CKA(BatchRelation):
    """L = 1 - <K_S, K_T> / (‖K_S‖ ‖K_T‖), K = X Xᵀ of the samples' features, centred.

    Features of any shapes, one row a sample; student and teacher may differ. Summed over levels.
    centred=False leaves the rows as they are; negative=True drops the constant, L = -CKA; both
    together are RCKA.
    group: over the global batch of a torch.distributed group ("world": the default one; scaling:
    see kdops.distributed). A batch without variance has CKA 0 and no gradient.
    """

    paper = "Kornblith et al. 2019"

    def __init__(
        self,
        *,
        centred: bool = True,
        negative: bool = False,
        group: Any = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.centred, self.negative, self.group = centred, negative, group

    def _level(self, student: Tensor, teacher: Tensor) -> Tensor:
        if len(student) == 0:  # an empty batch costs nothing
            return student.sum()
        loss = cka_loss(student, teacher, centered=self.centred)
        return loss - 1 if self.negative else loss
