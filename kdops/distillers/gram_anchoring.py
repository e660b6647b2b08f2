"""Gram anchoring: the similarities of the tokens of an image (DINOv3, Siméoni et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdops.distillers._base import Distiller, Levels, Pair, outside_autocast
from kdops.distillers._connectors import pooled_pairs
from kdops.distillers._masks import Mask, level_masks
from kdops.distillers._spectral import matrix
from kdops.distributed import over_group
from kdops.ops.token_gram import gram_anchoring_loss


class GramAnchoring(Distiller):
    """L = mean (G_S - G_T)², G = X Xᵀ of L2-normalised tokens, N x N per image, never stored.

    Tokens (B, N, D) or maps, whose positions are the tokens; the larger map is average-pooled, the
    widths D may differ. Summed over levels.
    negatives: "keep"; "drop": cosines below zero count as zero in both; "drop_teacher": in G_T.
    per: "image", or "batch": one BN x BN matrix of all tokens, of a global batch with group= (a
    torch.distributed group, "world" for the default one; scaling: see kdops.distributed).
    A mask leaves padding out; with per="image" every image counts alike, whatever its length.
    Differs from published code at zero tokens, whose gradient is 1e12 times too large there.
    """

    takes = ("map", "tokens")
    positions_rule = "pooled"
    paper = "Siméoni et al. 2025"

    def __init__(
        self,
        negatives: str = "keep",
        *,
        per: str = "image",
        group: Any = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        if negatives not in ("keep", "drop", "drop_teacher") or per not in ("image", "batch"):
            raise ValueError(
                "GramAnchoring: negatives is 'keep', 'drop' or 'drop_teacher' and per 'image' or "
                f"'batch', got {negatives!r} and {per!r}"
            )
        if group is not None and per == "image":
            raise ValueError(
                "GramAnchoring: images have no relations to those of other processes; group= needs "
                "per='batch'"
            )
        self.negatives, self.per, self.group = negatives, per, group

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs)
        masks = level_masks(self.name, mask, [s for s, _ in pairs])
        with outside_autocast(pairs[0][0]):
            return self.total(
                [
                    self._level(pair, m)
                    for pair, m in zip(pooled_pairs(self.name, pairs), masks, strict=True)
                ]
            )

    def _level(self, pair: Pair, mask: Tensor | None) -> Tensor:
        s, t = (matrix(x) for x in pair)
        if self.per == "batch":
            s, t = (over_group(x, self.group).flatten(0, 1) for x in (s, t))
            if mask is not None:
                mask = over_group(mask.to(s.dtype), self.group).flatten() != 0
        return gram_anchoring_loss(s, t, negatives=self.negatives, mask=mask)
