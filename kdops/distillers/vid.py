"""Variational information distillation (Ahn et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdops.distillers._base import Distiller, Levels, Pair, channel_numbers, full, mean, shapes
from kdops.distillers._connectors import apply, apply_pointwise, channel_lists, pool_pair
from kdops.distillers._masks import Mask


class VID(Distiller):
    """VID: a Gaussian model of the teacher's features given the student's.

    L = mean ½ [(μ(s) - t)² / σ² + log σ²], σ_c² = softplus(α_c) + ε per teacher channel, α trained.
    A level of maps (VID-I): μ is three 1x1 convolutions without bias with ReLU between, mid width
    C_T; the larger map is average-pooled to the smaller. A level of vectors or logits (B, C)
    (VID-LP, linear=True): μ is one Linear layer. ε = 1e-5, initial σ² = 5, so L may be negative.
    Differs from one library that never trains α, and from codes with log(1 + exp).
    """

    takes = ("embedding", "map", "tokens", "logits")
    padding = "valid"
    channels_rule = "connector"
    positions_rule = "pooled"
    paper = "Ahn et al. 2019"

    def __init__(
        self,
        student_channels: int | Sequence[int],
        teacher_channels: int | Sequence[int],
        *,
        linear: bool | Sequence[bool] = False,
        initial_variance: float = 5.0,
        eps: float = 1e-5,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.channels = channels = channel_lists(self.name, student_channels, teacher_channels)
        kinds = [linear] * len(channels) if isinstance(linear, bool) else list(linear)
        if len(kinds) != len(channels) or initial_variance <= eps:
            raise ValueError(
                f"VID: linear={linear!r}, initial_variance={initial_variance} for "
                f"{len(channels)} levels: one flag per level, variance above eps"
            )
        self.eps = float(eps)
        alpha = math.log(math.expm1(initial_variance - eps))
        self.means = nn.ModuleList(
            nn.Linear(a, b) if flat else _convolutions(a, b)
            for (a, b), flat in zip(channels, kinds, strict=True)
        )
        self.alphas = nn.ParameterList(torch.full((b,), alpha) for _, b in channels)

    @classmethod
    def _numbers(cls, pairs: Sequence[Pair]) -> dict[str, Any]:
        return {**channel_numbers(pairs), "linear": [s.ndim == 2 for s, _ in pairs]}

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        return self.total([0.5 * mean(terms) for terms in self.deviations(pairs)])

    def deviations(self, pairs: Sequence[Pair]) -> Iterator[Tensor]:
        """(μ(s) - t)² / σ² + log σ² of every level, of the shape of the teacher's features."""
        for i, (net, alpha, (s, t)) in enumerate(zip(self.means, self.alphas, pairs, strict=True)):
            flat = isinstance(net, nn.Linear)
            if (s.ndim == 2) != flat or (t.ndim == 2) != flat:
                raise ValueError(
                    f"VID: level {i}: built for {'vectors' if flat else 'maps'} and "
                    f"{alpha.numel()} teacher channels, got {shapes(s, t)}; use from_sample"
                )
            s, t = pool_pair(self.name, i, s, t)
            variance = (F.softplus(full(alpha)) + self.eps).view(-1, *[1] * (t.ndim - 2))
            run = apply if flat else apply_pointwise
            error = (run(self.name, i, net, s) - t) ** 2
            yield error / variance + variance.log()


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 1, bias=False),
    )
