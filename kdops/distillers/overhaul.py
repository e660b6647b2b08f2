"""A comprehensive overhaul of feature distillation (Heo et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from kdops.distillers._base import Levels, full, halving, samples
from kdops.distillers._connectors import apply_pointwise, channel_lists, pointwise, pool_pair
from kdops.distillers._margins import batch_norm_margin, negative_means
from kdops.distillers._masks import Mask
from kdops.distillers._prepared import PreparedDistiller


class Overhaul(PreparedDistiller):
    """OFD: pre-ReLU features, teacher margin, partial squared distance.

    t' = max(t, m_c), s' = BN(conv1x1(s)),
    L = scale · Σ_i ½^{n-1-i} · Σ (s' - t')² [s' > t' or t' > 0] / B, scale 1e-3.
    The margin m_c = E[x | x < 0] comes from the teacher's BatchNorm layers that produce the maps,
    ``prepare(batch_norms=[...])``, or from data, ``prepare(teacher_batches)`` (mean of the
    negative values per channel). Maps (B, C, *S) before the ReLU; the larger is average-pooled.
    """

    takes = ("map", "tokens")
    padding = "valid"
    channels_rule = "connector"
    positions_rule = "pooled"
    paper = "Heo et al. 2019, ICCV"

    def __init__(
        self,
        student_channels: int | Sequence[int],
        teacher_channels: int | Sequence[int],
        *,
        scale: float = 1e-3,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.scale = float(scale)
        self.channels = channel_lists(self.name, student_channels, teacher_channels)
        self.connectors = nn.ModuleList(pointwise(a, b, batch_norm=True) for a, b in self.channels)
        for i, (_, c) in enumerate(self.channels):
            self.register_buffer(f"margin_{i}", torch.zeros(c))

    @property
    def margins(self) -> list[Tensor]:
        """m_c of every level."""
        return [self.get_buffer(f"margin_{i}") for i in range(len(self.connectors))]

    def prepare(
        self,
        batches: Iterable[Levels] | None = None,
        *,
        batch_norms: Sequence[nn.Module] | None = None,
        epochs: int = 1,
        lr: float = 1e-3,
        progress: bool = True,
    ) -> list[Tensor]:
        """Set the margins from BatchNorm layers, one per level, or from batches of maps.

        One walk; epochs, lr and progress, which other methods need, change nothing.
        """
        if (batches is None) == (batch_norms is None):
            raise ValueError("Overhaul.prepare: give teacher batches or batch_norms, one of them")
        if batch_norms is not None:
            found = [batch_norm_margin(norm) for norm in batch_norms]
        else:
            found = negative_means(self.teacher_levels(batch) for batch in batches or ())
        if [m.numel() for m in found] != [m.numel() for m in self.margins]:
            raise ValueError(
                f"Overhaul.prepare: channels {[m.numel() for m in found]} of the margins do not "
                f"fit the teacher's {[m.numel() for m in self.margins]}"
            )
        for buffer, margin in zip(self.margins, found, strict=True):
            buffer.copy_(margin)
        self.mark_prepared()
        return self.margins

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        self.require_prepared()
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs)
        terms = []
        rows = zip(self.connectors, self.margins, pairs, strict=True)
        for i, (connector, margin, (s, t)) in enumerate(rows):
            s, t = pool_pair(self.name, i, apply_pointwise(self.name, i, connector, s), t)
            t = torch.maximum(t, full(margin).view(-1, *[1] * (t.ndim - 2)))
            square = (s - t).square() * ((s > t) | (t > 0))
            terms.append(square.sum() / samples(student))
        return self.scale * self.total(terms, halving(len(terms)))
