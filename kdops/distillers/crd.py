"""Contrastive representation distillation (Tian et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from kdops.distillers._base import Distiller, Levels, outside_autocast, unit
from kdops.distillers._connectors import apply, channel_lists
from kdops.distillers._masks import Mask, centroids, level_masks
from kdops.distillers._memory import ContrastMemory, samples_of


class CRD(Distiller):
    """L = mean_b -[log h(v, m_b) + Σ_k log(1 - h(v, m_k))], student's v against the teacher's
    memory m plus teacher's v against the student's.

    v = Linear(x) / |.|, width 128, both trained; h(v, m) = p / (p + K/N), p = exp(<v, m> / T) / Z,
    N = samples of the training set, K negatives drawn anew for every sample from all N; Z = N times
    the mean of exp over the first batch. 1e-7 is added to denominators, as published.
    In training every call moves the batch's rows of both memories: m <- unit(½ m + ½ v).
    x: embeddings (B, D); maps and tokens are averaged over their positions.

    index: which samples of the training set the batch holds, int64 (B,): fit passes it where the
    loader reads kdops.training.Indexed(dataset). negatives: indices (B, K) of your own choice (the
    published loader's "exact" mode: samples of other classes).
    N x 128 numbers twice, and Z, are buffers: state_dict saves them and training resumes. group:
    the memories see the samples of all processes. T .07, momentum .5, K 16384, weight .8.
    Differs from the published code in memory: scores of all N rows, from which those of the K + 1
    are read, not a B x K x 128 copy of rows (1 GB at B 64).
    """

    channels_rule = "connector"
    paper = "Tian et al. 2020"
    default_weight = 0.8
    needs = ("index",)

    def __init__(
        self,
        student_channels: int | Sequence[int],
        teacher_channels: int | Sequence[int],
        samples: int,
        *,
        width: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        group: Any = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        if min(samples, width, negatives) < 1 or temperature <= 0:
            raise ValueError(
                f"CRD: samples (of the training set), width, negatives and temperature are "
                f"positive, got {samples}, {width}, {negatives}, {temperature}"
            )
        self.samples, self.negatives, self.group = int(samples), int(negatives), group
        self.channels = channel_lists(self.name, student_channels, teacher_channels)
        self.embed_student = nn.ModuleList(nn.Linear(a, width) for a, _ in self.channels)
        self.embed_teacher = nn.ModuleList(nn.Linear(b, width) for _, b in self.channels)
        self.memories = nn.ModuleList(
            ContrastMemory(self.samples, width, float(temperature), float(momentum))
            for _ in self.channels
        )

    def forward(
        self,
        student: Levels,
        teacher: Levels,
        index: Tensor | None = None,
        *,
        negatives: Tensor | None = None,
        mask: Mask = None,
    ) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        masks = level_masks(self.name, mask, [s for s, _ in pairs])
        index, others = samples_of(pairs[0][0], index, negatives, self.samples, self.negatives)
        terms = []
        for i, (m, (s, t)) in enumerate(zip(masks, pairs, strict=True)):
            v_s = unit(apply(self.name, i, self.embed_student[i], centroids(s, m)), 1)
            v_t = unit(apply(self.name, i, self.embed_teacher[i], centroids(t, m)), 1)
            with outside_autocast(v_s):
                terms.append(self.memories[i](v_s, v_t, index, others, self.group))
        return self.total(terms)
