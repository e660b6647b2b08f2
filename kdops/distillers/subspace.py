"""The distance of two maps' leading subspaces on the Grassmann manifold (Edelman et al. 1998)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdops.distillers._base import Levels, mean, outside_autocast
from kdops.distillers._connectors import ConnectedDistiller
from kdops.distillers._masks import Mask, level_masks, within
from kdops.distillers._spectral import matrix, vector_counts
from kdops.ops.svd import batched_svd


class Subspace(ConnectedDistiller):
    """L = mean_b (k - ‖U_Sᵀ U_T‖_F²) / k, U the k first left singular vectors of a map (C x L), for
    tokens the right ones of (N x D): directions in channel space.

    The sum of the squared sines of the angles between two subspaces: no signs, no order, no
    alignment. Maps (B, C, *S) or tokens of any sizes; channels must agree, or connectors do it
    (student_channels and teacher_channels, or from_sample). k = 4. Summed over levels. A sample of
    fewer than k tokens has as many directions as tokens.
    """

    takes = ("map", "tokens")
    channels_rule = "equal or connector"
    paper = "Edelman et al. 1998"

    def __init__(
        self,
        student_channels: int | Sequence[int] | None = None,
        teacher_channels: int | Sequence[int] | None = None,
        *,
        k: int = 4,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(student_channels, teacher_channels, weights=weights, layout=layout)
        if k < 1:
            raise ValueError(f"Subspace: k >= 1, got {k}")
        self.k = k

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs)
        masks = level_masks(self.name, mask, [s for s, _ in pairs])
        with outside_autocast(pairs[0][0]):
            terms = []
            for i, pair in enumerate(self.connect(pairs)):
                vector_counts(self.name, i, pair, self.k, 0)
                terms.append(mean(_distance(*pair, self.k, masks[i])))
            return self.total(terms)


def _distance(s: Tensor, t: Tensor, k: int, mask: Tensor | None) -> Tensor:
    """(B,)"""
    with torch.no_grad():
        v_t = batched_svd(matrix(t), k, compute_u=False, canonical=False).Vh.mT
    v_s = batched_svd(matrix(s), k, compute_u=False, canonical=False).Vh.mT
    overlap = (within(v_s, mask).mT @ within(v_t, mask)).square().sum((1, 2))
    if mask is None:
        return (k - overlap) / k
    count = mask.sum(1).clamp(max=k).to(s.dtype)
    return (count - overlap) / count.clamp_min(1)
