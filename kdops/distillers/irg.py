"""Instance relationship graphs (Liu et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdops.distillers._base import Distiller, Levels, Pair, mean, outside_autocast, rows, shapes
from kdops.distillers._connectors import pool_pair
from kdops.distillers._masks import Mask, level_masks, over_valid
from kdops.distributed import over_group
from kdops.ops.relation import pairwise_distance


class IRG(Distiller):
    """L = w_V MSE(logits) + w_E mean_l MSE(d_l² / max) + w_T mean_l MSE(‖F_l - F_{l+1}‖² / max).

    Levels: the features in order and the logits last, two at least. d_l²: squared distances of all
    pairs of samples of feature level l, flattened; ‖F_l - F_{l+1}‖², one per sample, between
    consecutive levels with more than one position, each over its largest value in the batch.
    Positions and channels of the larger of the two are averaged (adaptively) to the smaller's.
    Weights .1, 5, 5. Widths of features may differ, the logits' may not.
    group: over the global batch of a torch.distributed group.
    Differs from AberHu's zoo (two maps, an embedding and the logits, for which it is the same) in
    equal samples, at distance 0 here and 1e-12 there.
    """

    takes = ("embedding", "map", "tokens", "pairs")
    channels_rule = positions_rule = "any, logits equal"
    paper = "Liu et al. 2019"

    def __init__(
        self,
        vertex_weight: float = 0.1,
        edge_weight: float = 5.0,
        transform_weight: float = 5.0,
        *,
        group: Any = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(layout=layout)
        self.vertex_weight, self.edge_weight = float(vertex_weight), float(edge_weight)
        self.transform_weight, self.group = float(transform_weight), group

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        masks = level_masks(self.name, mask, [s for s, _ in pairs])
        *features, (z_s, z_t) = pairs
        if not features:
            raise ValueError("IRG: needs at least 2 levels, features and the logits last, got 1")
        if z_s.shape != z_t.shape:
            raise ValueError(
                f"IRG: level {len(features)}: the last level is the logits, of the same classes in "
                f"student and teacher, got {shapes(z_s, z_t)}"
            )
        with outside_autocast(z_s):
            edges = [self._gap(map(self._edges, pair)) for pair in features]
            loss = self.edge_weight * torch.stack(edges).mean()
            z_s, z_t = (over_group(z, self.group) for z in (z_s, z_t))
            shared = m if (m := masks[-1]) is None else over_group(m, self.group)
            vertex = over_valid(mean((z_s - z_t).square()), shared)
            loss = loss + self.vertex_weight * vertex
            changes = [self._gap(change) for change in self._transforms(features)]
            if changes:
                loss = loss + self.transform_weight * torch.stack(changes).mean()
        return loss

    def _gap(self, both: Any) -> Tensor:
        s, t = (_over_largest(x) for x in both)
        return mean((s - t).square())

    def _edges(self, x: Tensor) -> Tensor:
        return pairwise_distance(over_group(rows(x), self.group), squared=True)

    def _transforms(self, features: Sequence[Pair]) -> list[list[Tensor]]:
        """‖F_l - F_{l+1}‖² (B,) of student and teacher, where both levels have positions."""
        found = []
        for i, (front, back) in enumerate(pairwise(features)):
            both = [*front, *back]
            if all(x.ndim > 2 and x.shape[2:].numel() > 1 for x in both):
                found.append([self._change(i, a, b) for a, b in zip(front, back, strict=True)])
        return found

    def _change(self, level: int, front: Tensor, back: Tensor) -> Tensor:
        front, back = (x.flatten(2) for x in pool_pair(self.name, level, front, back))
        width = min(front.shape[1], back.shape[1])
        front, back = (_averaged(x, width) for x in (front, back))
        return over_group((front - back).square().sum((1, 2)), self.group)


def _averaged(x: Tensor, width: int) -> Tensor:
    """The channels of x (B, C, L), averaged to that many: neighbours are one."""
    if x.shape[1] == width:
        return x
    return F.adaptive_avg_pool1d(x.mT, width).mT


def _over_largest(x: Tensor) -> Tensor:
    """x over its largest entry; all zero, or none, stays."""
    if not x.numel():
        return x
    largest = x.max()
    return x / torch.where(largest == 0, torch.ones_like(largest), largest)
