"""Knowledge transfer via distillation of activation boundaries (Heo et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kdops.distillers._base import Distiller, Levels, halving, samples
from kdops.distillers._connectors import channel_lists, connect, pointwise, pool_pair
from kdops.distillers._masks import Mask


class ActivationBoundary(Distiller):
    """AB: the student must agree with the sign of the teacher's pre-activations, with a margin.

    s = r(F_S), r = 1x1 conv + BN, t = F_T, both before the ReLU, margin m:
    l = (s + m)² [s > -m and t <= 0] + (s - m)² [s <= m and t > 0],
    L = scale · Σ_levels w · Σ l / B, w = 1, 1/2, 1/4, ... from the last level to the first.

    Maps (B, C, *S) taken before the ReLU (FeatureTap(..., at="pre_activation")); the larger map
    is average-pooled to the smaller. margin 1, scale 3/1000. connector: "always"; "auto": r only
    where channels differ; None: no r, channels must agree and their numbers need not be given.
    """

    takes = ("map", "tokens")
    padding = "valid"
    channels_rule = "connector"
    positions_rule = "pooled"
    paper = "Heo et al. 2019, AAAI"

    def __init__(
        self,
        student_channels: int | Sequence[int] | None = None,
        teacher_channels: int | Sequence[int] | None = None,
        *,
        connector: str | None = "always",
        margin: float = 1.0,
        scale: float = 3e-3,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.margin, self.scale = float(margin), float(scale)
        if connector not in ("always", "auto", None):
            raise ValueError(
                f"{self.name}: connector is 'always', 'auto' or None, got {connector!r}"
            )
        self.connectors = nn.ModuleList()
        if connector is None and student_channels is None and teacher_channels is None:
            return
        self.channels = channel_lists(self.name, student_channels or [], teacher_channels or [])
        if connector is not None:
            for a, b in self.channels:
                equal = connector == "auto" and a == b
                made = nn.Identity() if equal else pointwise(a, b, batch_norm=True)
                self.connectors.append(made)

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs)
        m, terms = self.margin, []
        for i, (s, t) in enumerate(connect(self, self.connectors, pairs)):
            s, t = pool_pair(self.name, i, s, t)
            silent = (s + m).clamp_min(0).square() * (t <= 0)
            active = (m - s).clamp_min(0).square() * (t > 0)
            terms.append((silent + active).sum() / samples(student))
        return self.scale * self.total(terms, halving(len(terms)))
