"""KL divergence of softmaxed relations (MiniLM: Wang et al. 2020; CIRKD: Yang et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdops._layout import is_tokens
from kdops.distillers._base import Distiller, Levels, Pair, outside_autocast
from kdops.distillers._connectors import pool_pair
from kdops.distillers._masks import Mask, level_masks
from kdops.distillers._spectral import matrix
from kdops.distributed import over_group
from kdops.ops.similarity_kl import Keys, similarity_kl_loss

PER = ("image", "pairs", "batch")


class RelationKL(Distiller):
    """L = mean over rows of KL(softmax(S_T / τ_T) ‖ softmax(S_S / τ_S)), S cosines, or inner
    products by similarity="dot". The matrices S are never stored.

    The rows are the samples of embeddings, (B, D) or (B, D, 1, 1), or the tokens (positions) of
    every image, whose larger map is average-pooled; widths may differ. per, whom a token meets:
    "image", the tokens of its image (MiniLM); "pairs", those of every image in turn, a softmax for
    each (CIRKD); "batch", all of the batch in one softmax. keys, at the call: a queue that rows
    meet instead, (M, D) for both networks or a pair of such.
    τ .1 for both; scale: of "dot", 1/√D by default; heads: relations of heads of D / heads columns
    each; self_pairs=False leaves a row's relation to itself out. A mask leaves padding out, every
    token that counts weighing alike. Summed over levels.
    group: of embeddings or per="batch", over the global batch of a torch.distributed group
    ("world": the default one; scaling: see kdops.distributed).
    Differs from CIRKD's code, which does not take the cosine of a zero row for zero, and from
    MiniLM's in the temperature: RelationKL(1.0, similarity="dot", heads=12) is MiniLM's.
    """

    positions_rule = "pooled"
    paper = "Wang et al. 2020; Yang et al. 2022"

    def __init__(
        self,
        temperature: float = 0.1,
        teacher_temperature: float | None = None,
        *,
        similarity: str = "cosine",
        scale: float | None = None,
        self_pairs: bool = True,
        per: str = "image",
        heads: int = 1,
        group: Any = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        if per not in PER:
            raise ValueError(f"RelationKL: per is 'image', 'pairs' or 'batch', got {per!r}")
        if per == "pairs" and (group is not None or not self_pairs or heads != 1):
            raise ValueError("RelationKL: per='pairs' takes no group, heads or self_pairs=False")
        self.per, self.heads, self.group, self.self_pairs = per, heads, group, self_pairs
        self.options: dict[str, Any] = {
            "temperature": temperature,
            "teacher_temperature": teacher_temperature,
            "similarity": similarity,
            "scale": scale,
        }

    def forward(
        self, student: Levels, teacher: Levels, *, mask: Mask = None, keys: Keys | None = None
    ) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        masks = level_masks(self.name, mask, [s for s, _ in pairs])
        with outside_autocast(pairs[0][0]):
            levels = enumerate(zip(pairs, masks, strict=True))
            return self.total([self._level(i, pair, m, keys) for i, (pair, m) in levels])

    def _level(self, level: int, pair: Pair, mask: Tensor | None, keys: Keys | None) -> Tensor:
        if all(_is_pooled(x) for x in pair):
            s, t = (over_group(x.flatten(1), self.group) for x in pair)
            return self._loss(s, t, self._gathered(s, mask), keys)
        self.check_maps([pair])
        s, t = (matrix(x) for x in pool_pair(self.name, level, *pair))
        if self.per == "pairs" and keys is None:
            return self._over_pairs(s, t, mask)
        if self.per == "batch":
            s, t = (over_group(x, self.group).flatten(0, 1) for x in (s, t))
            mask = self._gathered(s, mask)
        elif self.group is not None:
            raise ValueError(
                f"{self.name}: level {level}: images have no relations to those of other "
                "processes; group= needs embeddings or per='batch'"
            )
        return self._loss(s, t, mask, keys)

    def _loss(self, s: Tensor, t: Tensor, mask: Tensor | None, keys: Keys | None) -> Tensor:
        if keys is not None:
            return similarity_kl_loss(s, t, mask=mask, keys=keys, **self.options)
        if self.heads != 1:
            s, t = (self._split(x) for x in (s, t))
            mask = None if mask is None else mask.unsqueeze(-2).expand(s.shape[:-1])
        return similarity_kl_loss(s, t, mask=mask, self_pairs=self.self_pairs, **self.options)

    def _gathered(self, rows: Tensor, mask: Tensor | None) -> Tensor | None:
        """The mask of all rows of the global batch."""
        if mask is None:
            return None
        return over_group(mask.to(rows.dtype), self.group).flatten() != 0

    def _split(self, x: Tensor) -> Tensor:
        """(..., N, D) as (..., heads, N, D / heads)"""
        if x.shape[-1] % self.heads:
            raise ValueError(f"{self.name}: {x.shape[-1]} columns are not {self.heads} heads")
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)
        return heads

    def _over_pairs(self, s: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
        """The mean over images of what all tokens lose against the tokens of that image."""
        terms = []
        for j in range(s.shape[0]):
            keys = s[j], t[j]
            if mask is not None:
                keys = s[j][mask[j]], t[j][mask[j]]
            if keys[0].shape[0]:
                terms.append(similarity_kl_loss(s, t, mask=mask, keys=keys, **self.options))
        return torch.stack(terms).mean() if terms else s.sum() * 0


def _is_pooled(x: Tensor) -> bool:
    """An embedding (B, C), or a map (B, C, 1, 1), which is one."""
    return not is_tokens(x) and x.shape[2:].numel() == 1
