"""Paraphrasing complex network: factor transfer (Kim et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdops.distillers._base import Levels, Pair, PreparedDistiller, channel_numbers, mean, unit
from kdops.distillers._connectors import apply, channel_lists, check_planes, pool_pair


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
    Maps (B, C, H, W), the larger one average-pooled. A zero factor stays zero.
    Differs from one popular zoo, which reduces channels to an attention map first.
    """

    def __init__(
        self,
        student_channels: int | Sequence[int],
        teacher_channels: int | Sequence[int],
        *,
        rate: float = 0.5,
        p: int = 1,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(weights=weights)
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

    @classmethod
    def _numbers(cls, pairs: Sequence[Pair]) -> dict[str, Any]:
        return channel_numbers(pairs)

    def _reconstruction(self, levels: list[Tensor]) -> Tensor:
        for i, t in enumerate(levels):
            check_planes(self.name, i, "teacher", t)
        nets = zip(self.encoders, self.decoders, levels, strict=True)
        return torch.stack([F.mse_loss(dec(enc(t)), t) for enc, dec, t in nets]).sum()

    def prepare(
        self, batches: Iterable[Levels], *, epochs: int = 30, lr: float = 1e-3
    ) -> list[float]:
        """Train the paraphraser on batches of teacher maps; the reconstruction loss per epoch."""
        paraphraser = nn.ModuleList([self.encoders, self.decoders]).requires_grad_(True)
        try:
            history = self.learn(
                batches, self._reconstruction, paraphraser.parameters(), epochs=epochs, lr=lr
            )
        finally:
            paraphraser.requires_grad_(False)
        self.mark_prepared()
        return history

    def forward(self, student: Levels, teacher: Levels) -> Tensor:
        self.require_prepared()
        pairs = self.pairs(student, teacher)
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
