"""PKD: distillation by the Pearson correlation of channels (Cao et al. 2022)."""

from __future__ import annotations

from torch import Tensor

from kdops.distillers._base import Levels, mean
from kdops.distillers._connectors import ConnectedDistiller, pooled_pairs
from kdops.distillers._masks import Mask
from kdops.distillers._standard import standardised


class PKD(ConnectedDistiller):
    """L = ½ mean (ŝ - t̂)², every channel standardised over the samples and positions of the batch.

    x̂ = (x - mean) / (std + 1e-6), std unbiased; for n values that is (1 - Pearson) (n - 1) / n.
    Embeddings, maps or tokens; the larger map is average-pooled; unequal channels need a connector:
    from_sample, or student_channels and teacher_channels. Published weight 6. A constant channel
    is zero.
    Differs from mmrazor where sizes differ: it resizes the student's map bilinearly to the
    teacher's.
    """

    padding = "valid"
    channels_rule, positions_rule = "equal or connector", "pooled"
    paper = "Cao et al. 2022"
    default_weight = 6.0

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        terms = []
        for pair in pooled_pairs(self.name, self.connect(self.pairs(student, teacher, mask))):
            rows = (x.movedim(1, -1).flatten(0, -2) for x in pair)  # (B · positions, C)
            s, t = (standardised(x, 0, eps=1e-6, correction=1) if len(x) else x for x in rows)
            terms.append(0.5 * mean((s - t).square()))
        return self.total(terms)
