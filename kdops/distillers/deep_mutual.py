"""Deep mutual learning (Zhang et al. 2018): networks that teach each other while they train."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdops.distillers._base import mean
from kdops.distillers._masks import Mask
from kdops.distillers.soft_target import LogitDistiller, soft_divergence


class DeepMutual(LogitDistiller):
    """Net i: L_i = CE_i + λ · mean_{j != i} KL(p_j || p_i), p = softmax(z / T), p_j detached.

    forward(logits, target) takes the logits of all nets, two or more, and returns Σ_i L_i. Since
    every other net is detached, its gradient for net i is that of L_i alone, so one backward and
    one optimizer over all nets train them as the paper does. ``per_net`` returns the list of L_i;
    ``against(own, others, target)`` one net's loss. Without a target the KL terms alone.

    temperature 1, weight λ 1; a temperature other than 1 multiplies the KL by T².
    Differs from the paper in updating all nets at once, not in turn with a fresh forward.
    """

    paper = "Zhang et al. 2018"

    def __init__(
        self, temperature: float = 1.0, weight: float = 1.0, *, layout: str | None = None
    ) -> None:
        super().__init__(layout=layout)
        self.temperature, self.weight = float(temperature), float(weight)

    def against(
        self,
        own: Tensor,
        others: Tensor | Sequence[Tensor],
        target: Tensor | None = None,
        *,
        mask: Mask = None,
    ) -> Tensor:
        """The loss of one net against the others, which get no gradient."""
        others = [others] if isinstance(others, Tensor) else list(others)
        pairs = [self.logits(own, other, mask) for other in others]
        terms = [mean(soft_divergence(s, t, self.temperature)) for s, t in pairs]
        loss = self.weight * self.temperature**2 * torch.stack(terms).mean()
        return loss if target is None else loss + self.hard(own, target, mask)

    def per_net(
        self, logits: Sequence[Tensor], target: Tensor | None = None, *, mask: Mask = None
    ) -> list[Tensor]:
        """[L_0, L_1, ...]"""
        nets = list(logits)
        if isinstance(logits, Tensor) or len(nets) < 2:
            raise ValueError(f"{self.name}: pass a list with the logits of two or more networks")
        return [
            self.against(z, nets[:i] + nets[i + 1 :], target, mask=mask) for i, z in enumerate(nets)
        ]

    def forward(
        self, logits: Sequence[Tensor], target: Tensor | None = None, *, mask: Mask = None
    ) -> Tensor:
        return torch.stack(self.per_net(logits, target, mask=mask)).sum()
