"""Interpretable embedding procedure via stacked PCA and a graph neural network (Lee, Song 2021)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdops.distillers._base import Levels, Pair, as_list, mean, outside_autocast
from kdops.distillers._connectors import connect
from kdops.distillers._embedding import IncrementalPCA, MessagePassing, code_size, plane_map
from kdops.distillers._graph import GraphAttention, row_divergence
from kdops.distillers._graph_method import GraphDistiller, Vectors
from kdops.distillers._masks import Mask
from kdops.distillers._spectral import projected_vectors
from kdops.distributed import over_group
from kdops.ops.relation import pairwise_cosine


class IEP(GraphDistiller):
    """IEP: L = K_int + K_alt (+ K_black), knowledge of how the teacher embeds a batch.

    Per level: the teacher's first singular triple (u, v), the student's v_S = l2norm(F_Sᵀ u); both
    are mapped to a plane (stereographic) and coded by an incremental PCA of the teacher, D/2
    components. Between consecutive levels a message passing network, trained to reproduce the
    cosine affinity A of the back codes, gives a graph Ã and messages m:
    K_int = KL(Ã_T || Ã_S), rows softmaxed and summed; K_alt = mean_ij Σ_d |m_S - m_T|.
    black_box=True adds MHGD's term on the codes with 7 heads and an eighth made of the teacher's
    messages: KL(softmax(tanh S_S) || softmax(tanh S_T)).

    ``prepare(teacher_batches)`` (20 epochs) decomposes each map once, accumulates the PCA, then
    trains the networks, which stay frozen. Levels (B, C, *S) of equal size in student and
    teacher; a 1x1 connector where channels differ. ``knowledge`` returns the terms by name, so that
    each can be clipped by itself (kdops.training.clip_to_main). group: as in MHGD.
    Differs from the published code, which goes on updating the PCA during distillation, and uses
    a form of the plane mapping whose gradient is singular.
    """

    positions_rule = "equal"
    paper = "Lee and Song 2021"

    def __init__(
        self,
        student_channels: int | Sequence[int],
        teacher_channels: int | Sequence[int],
        *,
        black_box: bool = False,
        heads: int = 7,
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
        self.black_box = black_box
        self.codes = nn.ModuleList(IncrementalPCA(d) for d in as_list(teacher_channels))
        sizes = list(pairwise(code_size(d) for d in as_list(teacher_channels)))
        self.graphs = nn.ModuleList(MessagePassing(f, b) for f, b in sizes)
        self.attention = nn.ModuleList(
            GraphAttention(f, b, heads, extrinsic=1) for f, b in sizes if black_box
        )
        self.freeze()

    def networks(self) -> list[nn.Module]:
        return [self.graphs, self.attention]

    def teacher_loss(self, vectors: Vectors) -> Tensor:
        planes = [plane_map(v) for v in vectors]
        codes = [pca(x) for pca, x in zip(self.codes, planes, strict=True)]
        terms = []
        for i, (front, back) in enumerate(pairwise(codes)):
            graph, messages = self.graphs[i](front, back)
            terms.append(row_divergence(pairwise_cosine(back), graph))
            if self.black_box:
                head = cast(GraphAttention, self.attention[i])
                count = messages.shape[2] // back.shape[1]  # iterations
                extrinsic = (messages.mean(2) * count).detach()[None]
                terms.append(head.teacher_loss(front, back, self.decay, extrinsic))
        return torch.stack(terms).sum()

    def prepare(
        self,
        batches: Iterable[Levels],
        *,
        epochs: int = 20,
        lr: float = 1e-3,
        keep: torch.device | str | None = "cpu",
        progress: bool = True,
    ) -> list[float]:
        """One pass for the PCA, then epochs of training on teacher maps; the loss per epoch.

        The batches are walked and decomposed once, for the PCA and all epochs; keep and progress
        are those of MHGD.prepare, and so is what a shuffling or augmenting loader then means.
        """
        found = self.teacher_vectors(batches, keep, progress)
        for vectors in found:
            for pca, v in zip(self.codes, self.gathered(vectors), strict=True):
                cast(IncrementalPCA, pca).update(plane_map(v))
        return self.train_networks(found, epochs, lr, progress)

    def codes_of(self, student: Levels, teacher: Levels, mask: Mask = None) -> list[Pair]:
        """PCA codes (P_S, P_T) of every level, (B, D / 2); with group, of the global batch."""
        self.require_prepared()
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs, least=2)
        found = []
        with outside_autocast(pairs[0][0]):
            for i, pair in enumerate(connect(self, self.connectors, pairs)):
                both = projected_vectors(self.name, i, pair, 1, canonical=True)
                planes = [plane_map(over_group(v.squeeze(2), self.group)) for v in both]
                found.append((self.codes[i](planes[0]), self.codes[i](planes[1])))
        return found

    def knowledge(
        self, student: Levels, teacher: Levels, *, mask: Mask = None
    ) -> dict[str, Tensor]:
        """The terms "int", "alt" and, with black_box, "black", each summed over level pairs."""
        terms: dict[str, list[Tensor]] = {}
        codes = self.codes_of(student, teacher, mask)
        with outside_autocast(codes[0][0]):
            for i, ((f_s, f_t), (b_s, b_t)) in enumerate(pairwise(codes)):
                with torch.no_grad():
                    graph_t, messages_t = self.graphs[i](f_t, b_t)
                graph_s, messages_s = self.graphs[i](f_s, b_s)
                distance = mean((messages_s - messages_t).abs().sum(2))
                terms.setdefault("int", []).append(row_divergence(graph_t, graph_s))
                terms.setdefault("alt", []).append(distance)
                if self.black_box:
                    head = cast(GraphAttention, self.attention[i])
                    black = head.divergence((f_s, f_t), (b_s, b_t))
                    terms.setdefault("black", []).append(black)
        return {name: self.total(values) for name, values in terms.items()}

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        return torch.stack(list(self.knowledge(student, teacher, mask=mask).values())).sum()
