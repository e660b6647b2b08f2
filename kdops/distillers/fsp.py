"""A gift from knowledge distillation: the flow of solution procedure (Yim et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kdops.distillers._base import Levels, shapes
from kdops.distillers._connectors import ConnectedDistiller, check_pooling
from kdops.distillers._masks import Mask, level_masks, per_length
from kdops.ops.gram import fsp_loss


class FSP(ConnectedDistiller):
    """L = Σ_pairs mean_b ½ Σ_ij (G_S - G_T)², G = F1ᵀ F2 / (h w) between consecutive levels.

    Two or more levels of maps (B, C, *S) or tokens in network order; the larger map of a pair is
    pooled to the smaller. Channels must agree at every level, or connectors do it
    (student_channels and teacher_channels, or from_sample). Per-pair weights.

    pool: "max" or "avg". variant: "paper"; "mse": mean over B·C1·C2, which with pool="avg" is the
    form of the most used zoo; "columns": Σ of the column norms of G_S - G_T over B.
    """

    takes = ("map", "tokens", "pairs")
    channels_rule = "equal or connector"
    paper = "Yim et al. 2017"

    def __init__(
        self,
        student_channels: int | Sequence[int] | None = None,
        teacher_channels: int | Sequence[int] | None = None,
        *,
        pool: str = "max",
        variant: str = "paper",
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(student_channels, teacher_channels, weights=weights, layout=layout)
        self.pool, self.variant = pool, variant

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs, least=2)
        if len({x.ndim for pair in pairs for x in pair}) > 1:
            found = [shapes(*pair) for pair in pairs]
            raise ValueError(f"FSP: expected maps of one rank at all levels, got {found}")
        masks = level_masks(self.name, mask, [s for s, _ in pairs])
        s, t = zip(*self.connect(pairs), strict=True)
        terms = []
        for i in range(1, len(s)):
            check_pooling(f"FSP: levels {i - 1} and {i}", t[i - 1], t[i])
            front = [per_length(x, masks[i - 1]) for x in (s[i - 1], t[i - 1])]
            pair_s, pair_t = (front[0], s[i]), (front[1], t[i])
            terms.append(fsp_loss(pair_s, pair_t, pool=self.pool, variant=self.variant))
        return self.total(terms)
