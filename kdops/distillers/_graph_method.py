"""What MHGD and IEP share beside their equations: networks that learn from the teacher alone, on
the first singular vectors of its maps, and are frozen before the student comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdops._progress import Progress
from kdops.distillers._base import Levels, Pair, check_positions
from kdops.distillers._connectors import connectors
from kdops.distillers._masks import Mask
from kdops.distillers._prepared import PreparedDistiller
from kdops.distillers._spectral import matrix
from kdops.distributed import broadcast_state, over_group
from kdops.ops.svd import batched_svd

Vectors = list[Tensor]  # the first right singular vector of every sample, (B, D) per level


class GraphDistiller(PreparedDistiller):
    """The samples of a batch (with group, of the global batch) are the nodes of a graph.

    The networks stay frozen and in inference mode, except inside train_networks. They read nothing
    of the maps but the first singular vectors, which teacher_vectors finds once for all epochs.
    """

    takes = ("map", "tokens", "pairs")
    channels_rule = "connector"

    def __init__(
        self,
        student_channels: int | Sequence[int],
        teacher_channels: int | Sequence[int],
        *,
        decay: float,
        group: Any,
        weights: Sequence[float] | None,
        layout: str | None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.decay, self.group = decay, group
        self.channels, self.connectors = connectors(self.name, student_channels, teacher_channels)
        if len(self.connectors) < 2:
            raise ValueError(f"{self.name}: needs at least 2 levels, got {len(self.connectors)}")

    def pairs(self, student: Levels, teacher: Levels, mask: Mask = None) -> list[Pair]:
        pairs = super().pairs(student, teacher, mask)
        for i, (s, _) in enumerate(pairs):
            self._check_type(i, s)
        return pairs

    def teacher_levels(self, batch: Levels) -> list[Tensor]:
        levels = super().teacher_levels(batch)
        for i, t in enumerate(levels):
            self._check_type(i, t)
        return levels

    def _check_type(self, level: int, x: Tensor) -> None:
        """The graph networks compute in the type of their weights."""
        own = next(p.dtype for network in self.networks() for p in network.parameters())
        if x.dtype != own:
            raise ValueError(
                f"{self.name}: level {level}: expected features of the networks' type {own} (half "
                f"types count as torch.float32), got {x.dtype}; call to({x.dtype}) on the method"
            )

    def networks(self) -> list[nn.Module]:
        """What the preparatory phase trains."""
        raise NotImplementedError

    def teacher_loss(self, vectors: Vectors) -> Tensor:
        """What it minimises, from the teacher's vectors."""
        raise NotImplementedError

    def freeze(self, frozen: bool = True) -> None:
        for network in self.networks():
            network.requires_grad_(not frozen).train(not frozen)

    def train(self, mode: bool = True) -> GraphDistiller:
        super().train(mode)
        for network in self.networks():
            network.eval()
        return self

    @torch.no_grad()
    def first_vectors(self, batch: Levels) -> Vectors:
        """Of one batch of teacher maps; with group, of the samples of this process."""
        levels = self.teacher_levels(batch)
        for i, t in enumerate(levels):
            check_positions(self.name, i, t)
        return [batched_svd(matrix(t), 1, compute_u=False).Vh[:, 0] for t in levels]

    def teacher_vectors(
        self, batches: Iterable[Levels], keep: torch.device | str | None, progress: bool
    ) -> Iterable[Vectors]:
        """The vectors of all batches, kept on a device; keep=None: found anew in every walk."""
        if keep is None:
            return _Anew(self, batches)
        kept = []
        with Progress(f"{self.name}.prepare, singular vectors", batches, 1, None, progress) as bar:
            for batch in batches:
                found = self.first_vectors(batch)
                kept.append([v.to(keep, copy=True) for v in found])  # a view would keep its base
                bar.step()
        if not kept:
            raise ValueError(f"{self.name}.prepare: no batches; the iterable is empty")
        return kept

    def gathered(self, vectors: Vectors) -> Vectors:
        """Where the networks are, and those of all processes."""
        device = next(p.device for network in self.networks() for p in network.parameters())
        return [over_group(v.to(device), self.group) for v in vectors]

    def train_networks(
        self, vectors: Iterable[Vectors], epochs: int, lr: float, progress: bool
    ) -> list[float]:
        """The loss of every epoch; every process of the group gets the same networks."""

        def loss_of(batch: Vectors, epoch: int) -> Tensor:
            rows = self.gathered(batch)
            if rows[0].shape[0] == 1:
                raise ValueError(
                    f"{self.name}.prepare: a batch of one sample has no variance for the BatchNorm "
                    "of the networks; drop the last incomplete batch (drop_last=True in the loader)"
                )
            return self.teacher_loss(rows)

        self.freeze(False)
        try:
            own = [p for network in self.networks() for p in network.parameters()]
            history = self.learn(vectors, loss_of, own, epochs=epochs, lr=lr, progress=progress)
        finally:
            self.freeze()
        if self.group is not None:
            broadcast_state(self, None if isinstance(self.group, str) else self.group)
        self.mark_prepared()
        return history


class _Anew:
    """The vectors of batches, decomposed whenever they are walked."""

    def __init__(self, method: GraphDistiller, batches: Iterable[Levels]) -> None:
        self.method, self.batches = method, batches

    def __iter__(self) -> Iterator[Vectors]:
        return (self.method.first_vectors(batch) for batch in self.batches)

    def __len__(self) -> int:
        """That of the batches, or a TypeError where they have none."""
        return len(self.batches)  # type: ignore[arg-type]
