"""Paraphrasing complex network: factor transfer (Kim et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdops._progress import planned, say
from kdops.distillers._base import Levels, mean, unit
from kdops.distillers._connectors import apply, channel_lists, check_planes, pool_pair
from kdops.distillers._masks import Mask
from kdops.distillers._prepared import PreparedDistiller

# The published CIFAR setting, 30 epochs of 50,000 images in batches of 128, needs no more: a level
# of 64 channels 32x32, 128 16x16, 256 8x8 or 512 4x4 takes 1.7e10 multiply-adds a step and there
# are 11,730 steps. The last level of a ResNet-50 at 224 pixels would take 8e11 a step.
WORK, STEPS = 2e10, 24_000


def _stack(layer: type[nn.Module], widths: Sequence[int]) -> nn.Sequential:
    """3x3 stride-1 (transposed) convolutions, each followed by LeakyReLU(0.1)."""
    blocks = [
        nn.Sequential(layer(a, b, 3, stride=1, padding=1), nn.LeakyReLU(0.1))
        for a, b in pairwise(widths)
    ]
    return nn.Sequential(*blocks)


class FactorTransfer(PreparedDistiller):
    """FT: the student's translator imitates the factors of an autoencoder of the teacher.

    L = mean |f_T / ‖f_T‖₂ - f_S / ‖f_S‖₂|^p, factors flattened per sample, p = 1 (or 2).
    Paraphraser: encoder C -> C -> kC -> kC and mirrored decoder, 3x3, LeakyReLU 0.1, factor rate
    k = 0.5, trained on the teacher by mean squared reconstruction: ``prepare(teacher_batches)``.
    Translator: the encoder's shape from the student's channels, trained with the student.
    Maps (B, C, H, W), tokens with a grid only, the larger one average-pooled. A zero factor stays
    zero.
    Differs from one popular zoo, which reduces channels to an attention map first.
    """

    takes = ("map",)
    padding = ""
    channels_rule = "connector"
    positions_rule = "pooled"
    paper = "Kim et al. 2018"

    def __init__(
        self,
        student_channels: int | Sequence[int],
        teacher_channels: int | Sequence[int],
        *,
        rate: float = 0.5,
        p: int = 1,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        if p not in (1, 2):
            raise ValueError(f"FactorTransfer: p is 1 or 2, got {p}")
        self.p = p
        self.channels = channels = channel_lists(self.name, student_channels, teacher_channels)
        widths = [max(1, round(rate * t)) for _, t in channels]
        rows = list(zip(channels, widths, strict=True))
        self.encoders = nn.ModuleList(_stack(nn.Conv2d, [t, t, k, k]) for (_, t), k in rows)
        self.decoders = nn.ModuleList(
            _stack(nn.ConvTranspose2d, [k, k, t, t]) for (_, t), k in rows
        )
        self.translators = nn.ModuleList(_stack(nn.Conv2d, [s, s, k, k]) for (s, _), k in rows)
        self.encoders.requires_grad_(False)
        self.decoders.requires_grad_(False)

    def prepare(
        self,
        batches: Iterable[Levels],
        *,
        epochs: int = 30,
        lr: float = 1e-3,
        work: float | None = WORK,
        steps: int | None = STEPS,
        progress: bool = True,
    ) -> list[float]:
        """Train the paraphraser on batches of teacher maps; the reconstruction loss per epoch.

        A map (C, H, W) costs 31.5 C² H W multiply-adds forward (k = 0.5) and three times that with
        the gradient; the four levels of a ResNet-50 at 224 pixels cost six times the network. Hence
        two limits, None lifts one; the published CIFAR setting reaches neither (WORK, STEPS).
        work: multiply-adds of a level's forward in a step; a level beyond it trains on as many
        whole maps of the batch as fit, one at least, on others in every epoch. steps: gradient
        steps in all, after which the epochs end. Printed at the start: the arithmetic of a step,
        the number of steps, and what is left out; then a bar, or lines; progress=False is silent.
        The teacher of a FeatureStream runs in every epoch; list(stream) keeps its maps instead, on
        its device (6 MB an image for those four levels).
        """
        paraphraser = nn.ModuleList([self.encoders, self.decoders]).requires_grad_(True)
        started = not progress

        def loss_of(batch: Levels, epoch: int) -> Tensor:
            nonlocal started
            levels = self.teacher_levels(batch)
            for i, t in enumerate(levels):
                check_planes(self.name, i, "teacher", t)
            chosen = [self._share(i, t, epoch, work) for i, t in enumerate(levels)]
            if not started:
                say(self._cost(levels, chosen, planned(batches, epochs, steps)))
                started = True
            return self._reconstruction(chosen)

        try:
            history = self.learn(
                batches, loss_of, paraphraser.parameters(),
                epochs=epochs, lr=lr, steps=steps, progress=progress,
            )  # fmt: skip
        finally:
            paraphraser.requires_grad_(False)
        self.mark_prepared()
        return history

    def _reconstruction(self, levels: list[Tensor]) -> Tensor:
        nets = zip(self.encoders, self.decoders, levels, strict=True)
        return torch.stack([F.mse_loss(dec(enc(t)), t) for enc, dec, t in nets]).sum()

    def _map_work(self, level: int, t: Tensor) -> int:
        """Multiply-adds of one map's reconstruction."""
        kernels = nn.ModuleList([self.encoders[level], self.decoders[level]]).parameters()
        return sum(w.numel() for w in kernels if w.ndim == 4) * t.shape[2] * t.shape[3]

    def _share(self, level: int, t: Tensor, epoch: int, work: float | None) -> Tensor:
        """All maps of a level, or as many as the work allows, others in every epoch."""
        count = t.shape[0]
        if work is None or self._map_work(level, t) * count <= work:
            return t
        few = max(1, int(work // self._map_work(level, t)))
        rows = torch.arange(epoch * few, (epoch + 1) * few, device=t.device)
        return t.index_select(0, rows % count)

    def _cost(self, levels: list[Tensor], chosen: list[Tensor], steps: int | None) -> str:
        """What the preparatory phase costs, and which maps of a batch its limit leaves out."""
        each = [3 * self._map_work(i, t) * t.shape[0] for i, t in enumerate(chosen)]
        parts = [f"{self.name}.prepare: {2e-9 * sum(each):.3g} GFLOP a step"]
        parts += [] if steps is None else [f"{steps} steps at most"]
        parts += [
            f"{few.shape[0]} of {t.shape[0]} maps of level {i} in each"
            for i, (t, few) in enumerate(zip(levels, chosen, strict=True))
            if few.shape[0] < t.shape[0]
        ]
        return ", ".join(parts)

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        self.require_prepared()
        pairs = self.pairs(student, teacher, mask)
        terms = []
        rows = zip(self.encoders, self.translators, pairs, strict=True)
        for i, (encoder, translator, (s, t)) in enumerate(rows):
            check_planes(self.name, i, "student", s)
            check_planes(self.name, i, "teacher", t)
            f_s, f_t = apply(self.name, i, translator, s), apply(self.name, i, encoder, t).detach()
            f_s, f_t = pool_pair(self.name, i, f_s, f_t)
            distance = (unit(f_t.flatten(1), 1) - unit(f_s.flatten(1), 1)).abs()
            terms.append(mean(distance if self.p == 1 else distance.square()))
        return self.total(terms)
