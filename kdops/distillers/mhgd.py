"""Graph-based knowledge distillation by multi-head attention network (Lee and Song 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdops.distillers._base import (
    Levels,
    Pair,
    PreparedDistiller,
    as_list,
    channel_numbers,
    outside_autocast,
)
from kdops.distillers._connectors import connect, connectors
from kdops.distillers._graph import GraphAttention, row_divergence
from kdops.distillers._spectral import aligned_vectors, matrix, vector_counts
from kdops.distributed import broadcast_state, over_group
from kdops.ops.svd import batched_svd


class MHGD(PreparedDistiller):
    """MHGD: the samples of a batch are nodes, attention between two levels' vectors the edges.

    V_i (B, D_i): each sample's first right singular vector at level i (teacher k = 1, student
    1 + candidates, aligned). Attention logits S (H, B, B) between consecutive levels come from
    heads that were first trained on the teacher, ``prepare(teacher_batches)`` (40 epochs):
    estimate V_i from V_{i-1}, loss mean_b (1 - <V̂, V>) + 5e-4 Σ w². Transfer, heads frozen and
    BatchNorm in inference mode: L = Σ KL(softmax(tanh S_S) || softmax(tanh S_T)), summed over
    heads, rows and level pairs. tanh=False is the poster's form. 8 heads.

    student_channels, teacher_channels: per level; a 1x1 connector where they differ. group: graphs
    over the global batch ("world" for the default group; scaling: see kdops.distributed).
    Train with ``kdops.training.clip_to_main``. L is a sum: it grows with the batch.
    """

    def __init__(
        self,
        student_channels: int | Sequence[int],
        teacher_channels: int | Sequence[int],
        *,
        heads: int = 8,
        candidates: int = 3,
        tanh: bool = True,
        decay: float = 5e-4,
        group: Any = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(weights=weights)
        self.candidates, self.tanh, self.decay, self.group = candidates, tanh, decay, group
        self.connectors = connectors(self.name, student_channels, teacher_channels)
        sizes = pairwise(as_list(teacher_channels))
        self.heads = nn.ModuleList(GraphAttention(f, b, heads) for f, b in sizes)
        self.heads.requires_grad_(False).eval()

    @classmethod
    def _numbers(cls, pairs: Sequence[Pair]) -> dict[str, Any]:
        return channel_numbers(pairs)

    def train(self, mode: bool = True) -> MHGD:
        """The heads stay in inference mode."""
        super().train(mode)
        self.heads.eval()
        return self

    def _teacher_loss(self, levels: list[Tensor]) -> Tensor:
        with torch.no_grad():
            found = [batched_svd(matrix(t), 1, compute_u=False).Vh[:, 0] for t in levels]
            found = [over_group(v, self.group) for v in found]
        terms = [
            cast(GraphAttention, head).teacher_loss(front, back, self.decay)
            for head, (front, back) in zip(self.heads, pairwise(found), strict=True)
        ]
        return torch.stack(terms).sum()

    def prepare(
        self, batches: Iterable[Levels], *, epochs: int = 40, lr: float = 1e-3
    ) -> list[float]:
        """Train the attention heads on batches of teacher maps; the loss of every epoch."""
        self.heads.requires_grad_(True).train()
        try:
            parameters = self.heads.parameters()
            history = self.learn(batches, self._teacher_loss, parameters, epochs=epochs, lr=lr)
        finally:
            self.heads.requires_grad_(False).eval()
        if self.group is not None:
            broadcast_state(self, None if isinstance(self.group, str) else self.group)
        self.mark_prepared()
        return history

    def forward(self, student: Levels, teacher: Levels) -> Tensor:
        self.require_prepared()
        pairs = self.pairs(student, teacher, len(self.heads) + 1)
        self.check_maps(pairs, least=2)
        vectors = []
        with outside_autocast(pairs[0][0]):
            for i, pair in enumerate(connect(self, self.connectors, pairs)):
                count = vector_counts(self.name, i, pair, 1, self.candidates)
                both = aligned_vectors(pair, 1, count, canonical=True)
                vectors.append([over_group(v.squeeze(2), self.group) for v in both])
            terms = [
                self._divergence(cast(GraphAttention, head), front, back)
                for head, (front, back) in zip(self.heads, pairwise(vectors), strict=True)
            ]
        return self.total(terms)

    def _divergence(self, head: GraphAttention, front: list[Tensor], back: list[Tensor]) -> Tensor:
        s_s = head.logits(front[0], back[0])
        with torch.no_grad():
            s_t = head.logits(front[1], back[1])
        return row_divergence(*((s_s.tanh(), s_t.tanh()) if self.tanh else (s_s, s_t)))
