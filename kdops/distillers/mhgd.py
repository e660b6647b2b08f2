"""Graph-based knowledge distillation by multi-head attention network (Lee and Song 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdops.distillers._base import Levels, Pair, as_list, outside_autocast
from kdops.distillers._connectors import connect
from kdops.distillers._graph import GraphAttention
from kdops.distillers._graph_method import GraphDistiller, Vectors
from kdops.distillers._masks import Mask, level_masks
from kdops.distillers._spectral import aligned_vectors, vector_counts
from kdops.distributed import over_group


class MHGD(GraphDistiller):
    """MHGD: the samples of a batch are nodes, attention between two levels' vectors the edges.

    V_i (B, D_i): each sample's first right singular vector at level i (teacher k = 1, student
    1 + candidates, aligned). Attention logits S (H, B, B) between consecutive levels come from
    heads that were first trained on the teacher, ``prepare(teacher_batches)`` (40 epochs, each
    map decomposed once): estimate V_i from V_{i-1}, loss mean_b (1 - <V̂, V>) + 5e-4 Σ w².
    Transfer, heads frozen and BatchNorm in inference mode:
    L = Σ KL(softmax(tanh S_S) || softmax(tanh S_T)), summed over heads, rows and level pairs.
    tanh=False is the poster's form. 8 heads.

    student_channels, teacher_channels: per level; a 1x1 connector where they differ. group: graphs
    over the global batch ("world" for the default group; scaling: see kdops.distributed).
    Train with ``kdops.training.clip_to_main``. L is a sum: it grows with the batch.
    """

    paper = "Lee and Song 2019"

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
        layout: str | None = None,
    ) -> None:
        super().__init__(
            student_channels,
            teacher_channels,
            decay=decay,
            group=group,
            weights=weights,
            layout=layout,
        )
        self.candidates, self.tanh = candidates, tanh
        sizes = pairwise(as_list(teacher_channels))
        self.heads = nn.ModuleList(GraphAttention(f, b, heads) for f, b in sizes)
        self.freeze()

    def networks(self) -> list[nn.Module]:
        return [self.heads]

    def teacher_loss(self, vectors: Vectors) -> Tensor:
        terms = [
            cast(GraphAttention, head).teacher_loss(front, back, self.decay)
            for head, (front, back) in zip(self.heads, pairwise(vectors), strict=True)
        ]
        return torch.stack(terms).sum()

    def prepare(
        self,
        batches: Iterable[Levels],
        *,
        epochs: int = 40,
        lr: float = 1e-3,
        keep: torch.device | str | None = "cpu",
        progress: bool = True,
    ) -> list[float]:
        """Train the attention heads on batches of teacher maps; the loss of every epoch.

        The batches are walked and decomposed once; all epochs train on their singular vectors,
        kept on the device `keep`: 4 Σ D_i bytes an image in fp32 (15 KB for the four levels of
        ResNet-50, 90 MB for CIFAR-100 and three levels of 64, 128, 256). So every epoch has the
        first one's batches, and of random crops those of the first walk. keep=None walks and
        decomposes anew in every epoch, with new shuffles and crops, at epochs times the cost.
        progress: a bar (with tqdm), or lines, on the error output.
        """
        vectors = self.teacher_vectors(batches, keep, progress)
        return self.train_networks(vectors, epochs, lr, progress)

    def vectors(self, student: Levels, teacher: Levels, mask: Mask = None) -> list[Pair]:
        """(V_S, V_T) of every level, (B, D); with group, of the global batch."""
        self.require_prepared()
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs, least=2)
        masks = level_masks(self.name, mask, [s for s, _ in pairs])
        found = []
        with outside_autocast(pairs[0][0]):
            for i, pair in enumerate(connect(self, self.connectors, pairs)):
                count = vector_counts(self.name, i, pair, 1, self.candidates)
                both = aligned_vectors(pair, 1, count, True, masks[i])
                v_s, v_t = (over_group(v.squeeze(2), self.group) for v in both)
                found.append((v_s, v_t))
        return found

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        vectors = self.vectors(student, teacher, mask)
        with outside_autocast(vectors[0][0]):
            terms = [
                cast(GraphAttention, head).divergence(front, back, self.tanh)
                for head, (front, back) in zip(self.heads, pairwise(vectors), strict=True)
            ]
        return self.total(terms)
