"""Knowledge distillation by on-the-fly native ensemble (Lan et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdops.distillers._base import Distiller, check_feature, full, mean, read, shapes
from kdops.distillers._connectors import apply
from kdops.distillers._masks import Mask
from kdops.distillers.soft_target import check_logits, hard_loss, soft_divergence
from kdops.training import gaussian_ramp


class OnTheFlyEnsemble(Distiller):
    """ONE: m branches on a shared trunk, their gated ensemble teaches every branch.

    g = softmax(ReLU(BN(Linear(trunk)))), z_e = Σ_i g_i z_i,
    L = Σ_i CE_i + CE_e + w(t) · T² · Σ_i KL(p_e || p_i), p = softmax(z / T), z_e detached in KL,
    w(t) = weight · exp(-5 (1 - t / ramp)²) for t < ramp epochs, weight afterwards.

    features: width of the trunk's output: (B, features), maps (B, features, *S) or tokens
    (B, N, features) with layout="tokens", both averaged over positions (pool padded tokens
    yourself). forward(logits, trunk, target, epoch): logits is the list of m branch
    logits. T = 3, ramp = 80 epochs (0: none). ``ensemble`` gives z_e, the network used at test.
    """

    takes = ("logits",)
    padding = ""
    channels_rule, positions_rule = "equal", "equal"
    paper = "Lan et al. 2018"

    def __init__(
        self,
        features: int,
        branches: int = 3,
        *,
        temperature: float = 3.0,
        weight: float = 1.0,
        ramp: int = 80,
        layout: str | None = None,
    ) -> None:
        super().__init__(layout=layout)
        if branches < 2:
            raise ValueError(f"{self.name}: needs at least 2 branches, got {branches}")
        self.features, self.branches = features, branches
        self.temperature, self.weight, self.ramp = float(temperature), float(weight), ramp
        self.gate = nn.Sequential(
            nn.Linear(features, branches), nn.BatchNorm1d(branches), nn.ReLU()
        )

    def ramp_up(self, epoch: float) -> float:
        """w(t)"""
        return self.weight * gaussian_ramp(epoch, self.ramp)

    def ensemble(self, logits: Sequence[Tensor], trunk: Tensor) -> Tensor:
        """z_e = Σ_i g_i z_i, (B, classes)."""
        check_feature(self.name, 0, "trunk", trunk)
        trunk = read(f"{self.name}: the trunk", trunk, self.layout)
        if trunk.shape[1] != self.features:
            raise ValueError(
                f"{self.name}: the gate reads {self.features} features, the trunk is "
                f"{shapes(trunk)}; pass the tensor that all branches share"
            )
        if any(z.ndim != 2 or z.shape[0] != trunk.shape[0] for z in logits):
            raise ValueError(
                f"{self.name}: expected logits (B, classes) of the trunk's batch, got "
                f"{shapes(*logits)} for a trunk {shapes(trunk)}"
            )
        x = trunk.flatten(2).mean(2) if trunk.ndim > 2 else trunk
        gate = torch.softmax(apply(self.name, 0, self.gate, x), dim=1)
        return torch.einsum("bm,mbc->bc", gate, torch.stack([full(z) for z in logits]))

    def forward(
        self,
        logits: Sequence[Tensor],
        trunk: Tensor,
        target: Tensor | None = None,
        epoch: float = math.inf,
        *,
        mask: Mask = None,
    ) -> Tensor:
        if mask is not None:
            raise ValueError(
                f"{self.name}: takes no mask: its logits and its gate are of whole samples; pool "
                "the valid tokens of the trunk yourself and pass (B, features)"
            )
        if isinstance(logits, Tensor) or len(logits) != self.branches:
            raise ValueError(f"{self.name}: {len(logits)} logits for {self.branches} branches")
        for z in logits:
            check_logits(self.name, logits[0], z)
        nets = [full(z) for z in logits]
        z_e = self.ensemble(nets, trunk)
        soft = [mean(soft_divergence(z, z_e.detach(), self.temperature)) for z in nets]
        loss = self.ramp_up(epoch) * self.temperature**2 * torch.stack(soft).sum()
        if target is None:
            return loss
        hard = [hard_loss(self.name, z, target) for z in [*nets, z_e]]
        return loss + torch.stack(hard).sum()
