"""Paying more attention to attention: attention transfer (Zagoruyko and Komodakis 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kdops.distillers._base import Distiller, Levels
from kdops.distillers._connectors import pooled_pairs
from kdops.distillers._masks import Mask, level_masks, over_valid
from kdops.ops.attention import attention_loss


class AttentionTransfer(Distiller):
    """AT: match the spatial attention maps Q̂ = Q / ‖Q‖₂ of student and teacher.

    Q = Σ_c |A_c|^p (reduce="sum") or max_c |A_c|^p (reduce="max"), one value per position.
    variant="code" (the published numbers): L = β · mean over (B, H·W) of (Q̂_S - Q̂_T)², β = 1000;
    variant="paper": L = β / 2 · mean_b ‖Q̂_S - Q̂_T‖₂. Summed over levels.
    Maps (B, C, *S) or tokens, any channels; the larger map is average-pooled to the smaller. p = 2.
    Differs from two popular codes, which forget |A| for odd p, and from all libraries read, which
    lack reduce="max".
    """

    takes = ("map", "tokens")
    positions_rule = "pooled"
    paper = "Zagoruyko and Komodakis 2017"

    def __init__(
        self,
        beta: float = 1000.0,
        *,
        p: float = 2,
        reduce: str = "sum",
        variant: str = "code",
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.beta, self.p, self.reduce, self.variant = float(beta), p, reduce, variant

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs)
        terms = [
            attention_loss(s, t, p=self.p, reduce=self.reduce, variant=self.variant)
            for s, t in pooled_pairs(self.name, pairs)
        ]
        if self.variant == "code":
            masks = level_masks(self.name, mask, [s for s, _ in pairs])
            terms = [over_valid(term, m) for term, m in zip(terms, masks, strict=True)]
        return self.beta * self.total(terms)
