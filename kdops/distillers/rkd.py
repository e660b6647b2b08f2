"""Relational knowledge distillation (Park et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdops.distillers._relations import BatchRelation
from kdops.ops.relation import rkd_angle_loss, rkd_distance_loss


class RKD(BatchRelation):
    """L = w_D · L_D + w_A · L_A on the embeddings of a batch, (N, D), or maps or tokens, flattened.

    L_D = mean_ij smooth_l1(ψ_S - ψ_T), ψ_ij = ‖x_i - x_j‖ / μ, μ the mean of the distances > 0;
    L_A = mean_ijk smooth_l1(A_S - A_T), A_ijk = <e_ij, e_ik>, e_ij the unit vector from i to j.
    The sizes D of student and teacher may differ. Weights 25 and 50; a weight of 0 skips its term.

    normalize: L2-normalise the rows first. group: relations over the global batch of a
    torch.distributed group ("world" for the default one; scaling: see kdops.distributed).
    Differs from the published code at repeated rows, whose gradient explodes there and is zero
    here, and in memory: O(N²), not N² D and N³.
    """

    paper = "Park et al. 2019"

    def __init__(
        self,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        *,
        normalize: bool = False,
        group: Any = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.distance_weight, self.angle_weight = float(distance_weight), float(angle_weight)
        self.normalize, self.group = normalize, group

    def _level(self, student: Tensor, teacher: Tensor) -> Tensor:
        term = student.new_zeros(())
        if self.distance_weight:
            distance = rkd_distance_loss(student, teacher, normalize=self.normalize)
            term = term + self.distance_weight * distance
        if self.angle_weight:
            angle = rkd_angle_loss(student, teacher, normalize=self.normalize)
            term = term + self.angle_weight * angle
        return term
