"""Class attention transfer, CAT-KD (Guo et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from kdops.distillers._base import Distiller, Levels, mean, shapes, unit
from kdops.distillers._connectors import check_planes


class CATKD(Distiller):
    """L = mean (â_S - â_T)², class activation maps (B, classes, H, W) pooled to 2 x 2 and unit.

    The maps are those of the last convolution, one channel a class, before the global pooling;
    sizes may differ. Every map of 4 numbers is L2-normalised (normalize=False: as it is), a zero
    map stays zero. resolution: 2.
    Differs from the authors' configurations for CAT-KD, which have normalize=False and weights of
    1 to 20; theirs for CAT alone normalise.
    """

    takes = ("map",)
    padding = ""
    channels_rule, positions_rule = "equal", "pooled"
    paper = "Guo et al. 2023"

    def __init__(
        self,
        *,
        resolution: int = 2,
        normalize: bool = True,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        if resolution < 1:
            raise ValueError(f"CATKD: the resolution is 1 or more, got {resolution}")
        self.resolution, self.normalize = int(resolution), bool(normalize)

    def forward(self, student: Levels, teacher: Levels) -> Tensor:
        terms = []
        for i, (s, t) in enumerate(self.pairs(student, teacher)):
            check_planes(self.name, i, "student", s)
            check_planes(self.name, i, "teacher", t)
            if s.shape[1] != t.shape[1]:
                raise ValueError(
                    f"CATKD: level {i}: class activation maps need the same classes in student and "
                    f"teacher, got {shapes(s, t)}; tap the convolution that makes one map a class"
                )
            terms.append(mean((self._small(s) - self._small(t)).square()))
        return self.total(terms)

    def _small(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(x, self.resolution).flatten(2)
        return unit(x, 2) if self.normalize else x
