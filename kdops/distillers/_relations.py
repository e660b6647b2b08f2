"""Methods that compare the relations between the samples of a batch: one row a sample."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdops.distillers._base import Distiller, Levels, outside_autocast, rows
from kdops.distillers._masks import Mask
from kdops.distributed import over_group


class BatchRelation(Distiller):
    """The sum over levels of a term of student's and teacher's rows, maps and tokens flattened.

    group: the rows of the global batch of a torch.distributed group.
    """

    group: Any = None

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        with outside_autocast(pairs[0][0]):
            levels = [[over_group(rows(x), self.group) for x in pair] for pair in pairs]
            return self.total([self._level(s, t) for s, t in levels])

    def _level(self, student: Tensor, teacher: Tensor) -> Tensor:
        raise NotImplementedError
