"""The memory of CRD: one unit vector a sample of the training set, of student and of teacher."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from kdops.distillers._base import shapes, unit
from kdops.distillers._standard import largest_at_hand
from kdops.distributed import over_group

EPS = 1e-7  # of the published loss


class ContrastMemory(nn.Module):
    """Noise-contrastive loss of a batch against the rows of N samples; buffers, saved and resumed.

    rows of both sides start uniform, as published; normaliser holds Z of student and teacher, -1
    before the first batch in training.
    """

    student: Tensor
    teacher: Tensor
    normaliser: Tensor

    def __init__(self, samples: int, width: int, temperature: float, momentum: float) -> None:
        super().__init__()
        self.temperature, self.momentum = temperature, momentum
        bound = 1 / math.sqrt(width / 3)
        for side in ("student", "teacher"):
            rows = torch.empty(samples, width).uniform_(-bound, bound)
            self.register_buffer(side, rows)
        self.register_buffer("normaliser", torch.full((2,), -1.0))

    def forward(
        self, v_s: Tensor, v_t: Tensor, index: Tensor, negatives: Tensor, group: Any
    ) -> Tensor:
        """Both losses of unit vectors v (B, width) of the samples index (B,) and negatives (B, K);
        in training it then takes the batch in."""
        chosen = torch.cat([index.unsqueeze(1), negatives], 1)
        pairs = [(v_s, self.teacher), (v_t, self.student)]
        both = torch.stack([self._likeness(v, rows, chosen) for v, rows in pairs])
        share = both / self._sums(both.detach(), group)[:, None, None]
        noise = negatives.shape[1] / len(self.student)
        own = (share[:, :, 0] / (share[:, :, 0] + noise + EPS)).log()
        others = (noise / (share[:, :, 1:] + noise + EPS)).log()
        if self.training:
            self._take(self.student, v_s, index, group)
            self._take(self.teacher, v_t, index, group)
        return -(own.sum() + others.sum()) / max(len(index), 1)

    def _likeness(self, v: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        """exp(<v, m> / T) for the chosen rows m, (B, K + 1)."""
        rows = rows.to(v.dtype, copy=self.training)  # the rows move before the backward reads them
        return ((v @ rows.mT).gather(1, chosen) / self.temperature).exp()

    def _sums(self, both: Tensor, group: Any) -> Tensor:
        """Z of student and teacher, N times the mean of the first batch in training."""
        mean = over_group(both.mean(2).mT.contiguous(), group).mean(0) * len(self.student)
        fresh = (self.normaliser < 0) & mean.isfinite()  # an empty batch has no mean
        found = torch.where(fresh, mean.to(self.normaliser.dtype), self.normaliser)
        if self.training:
            self.normaliser.copy_(found)
        return found.to(both.dtype)

    @torch.no_grad()
    def _take(self, rows: Tensor, v: Tensor, index: Tensor, group: Any) -> None:
        """Moves the rows of a batch, of all processes with a group."""
        v, index = (over_group(x, group) for x in (v.detach().to(rows.dtype), index))
        rows[index] = unit(self.momentum * rows[index] + (1 - self.momentum) * v, 1)


def samples_of(
    x: Tensor, index: Any, negatives: Any, samples: int, count: int
) -> tuple[Tensor, Tensor]:
    """index (B,) and negatives (B, K) for a batch x, checked; drawn where none are given."""
    if index is None:
        raise ValueError(
            "CRD: needs index=, which samples of the training set the batch holds, int64 "
            f"[{len(x)}]; fit passes it where the loader reads kdops.training.Indexed(dataset)"
        )
    if negatives is None:
        negatives = torch.randint(samples, (len(x), count), device=x.device)
    for name, value, rank in (("index", index, 1), ("negatives", negatives, 2)):
        whole = isinstance(value, Tensor) and value.dtype == torch.int64 and value.ndim == rank
        if not whole or len(value) != len(x) or value.device != x.device:
            raise ValueError(
                f"CRD: expected {name} of type int64 and shape {['[B]', '[B, K]'][rank - 1]} on "
                f"{x.device} for a batch of {len(x)}, got {_described(value)}"
            )
        if (largest := largest_at_hand(value)) >= samples:
            raise ValueError(
                f"CRD: {name} holds sample {largest}, the memory has {samples}; pass "
                "samples=len(dataset)"
            )
    return index, negatives


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{shapes(value)} {value.dtype} on {value.device}"
