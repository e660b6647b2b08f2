"""Neuron selectivity transfer (Huang and Wang 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kdops.distillers._base import Distiller, Levels
from kdops.distillers._connectors import pooled_pairs
from kdops.distillers._masks import Mask
from kdops.ops.gram import nst_loss


class NST(Distiller):
    """L = β · MMD² between the L2-normalised channel maps of student and teacher.

    x^i = channel i as a unit vector of length H·W, MMD² = mean k(t, t') + mean k(s, s') -
    2 mean k(s, t), averaged over the batch. kernel: "poly" (xᵀy + c)^degree, degree 2, c = 0;
    "linear"; "gaussian" exp(-|x - y|² / (2 σ²)), σ the bandwidth, by default σ² = the sample's mean
    squared distance between s and t. Maps (B, C, *S) or tokens; channels may differ; the larger map
    is average-pooled. β = 50.
    Differs from the published code in memory: Gram matrices of the smaller side only.
    """

    takes = ("map", "tokens")
    positions_rule = "pooled"
    paper = "Huang and Wang 2017"

    def __init__(
        self,
        beta: float = 50.0,
        *,
        kernel: str = "poly",
        degree: int = 2,
        c: float = 0.0,
        bandwidth: float | None = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.beta = float(beta)
        self.kernel, self.degree, self.c, self.bandwidth = kernel, degree, c, bandwidth

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs)
        terms = [
            nst_loss(
                s,
                t,
                kernel=self.kernel,
                degree=self.degree,
                c=self.c,
                bandwidth=self.bandwidth,
            )
            for s, t in pooled_pairs(self.name, pairs)
        ]
        return self.beta * self.total(terms)
