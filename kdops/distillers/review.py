"""Knowledge review (Chen et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdops.distillers._base import Distiller, Levels, mean
from kdops.distillers._connectors import apply, channel_lists, check_planes


class ReviewKD(Distiller):
    """ReviewKD: the student's maps, fused from deep to shallow, against the teacher's.

    ABF: x = BN(conv1x1(F_S)); with the deeper level's y, brought to the size of x, an attention of
    two channels (a, b) = σ(conv1x1([x, y])) mixes them, a x + b y; that is handed on to the next
    shallower level, and BN(conv3x3(.)) at the teacher's size is compared by HCL: (MSE + MSE at 4x4
    / 2 + 2x2 / 4 + 1x1 / 8) / (1 + 1/2 + 1/4 + 1/8), of the sizes below the map's height.
    Levels: maps (B, C, H, W) from shallow to deep; the last may be a pooled embedding (B, C).
    width: of the fused maps, min(512, student_channels[-1]).
    Differs from mdistiller in sizes: they are read off the maps, which need not be square.
    """

    takes = ("map",)
    padding = ""
    channels_rule, positions_rule = "connector", "resized"
    paper = "Chen et al. 2021"

    def __init__(
        self,
        student_channels: int | Sequence[int],
        teacher_channels: int | Sequence[int],
        *,
        width: int | None = None,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.channels = channel_lists(self.name, student_channels, teacher_channels)
        width = min(512, self.channels[-1][0]) if width is None else width
        last = len(self.channels) - 1
        self.fusions = nn.ModuleList(
            Fusion(a, width, b, fuse=i < last) for i, (a, b) in enumerate(self.channels)
        )

    def forward(self, student: Levels, teacher: Levels) -> Tensor:
        pairs = self.pairs(student, teacher)
        s, t = (x[..., None, None] if x.ndim == 2 else x for x in pairs[-1])
        pairs[-1] = (s, t)
        terms, deeper = [], None
        for i, (s, t) in reversed(list(enumerate(pairs))):
            check_planes(self.name, i, "student", s)
            check_planes(self.name, i, "teacher", t)
            out, deeper = self.fusions[i](i, s, deeper, t.shape[2:])
            terms.append(_hierarchical(out, t))
        return self.total(terms[::-1])


class Fusion(nn.Module):
    """ABF of one level."""

    def __init__(self, inputs: int, width: int, outputs: int, *, fuse: bool) -> None:
        super().__init__()
        self.reduce = _convolution(inputs, width, 1)
        self.expand = _convolution(width, outputs, 3)
        self.attend = nn.Conv2d(2 * width, 2, 1) if fuse else None

    def forward(
        self, level: int, x: Tensor, deeper: Tensor | None, size: torch.Size
    ) -> tuple[Tensor, Tensor]:
        """The map to compare, and the fused one for the next level."""
        x = apply("ReviewKD", level, self.reduce, x)
        if self.attend is not None and deeper is not None:
            y = _resized(deeper, x.shape[2:])
            share = apply("ReviewKD", level, self.attend, torch.cat([x, y], 1)).sigmoid()
            x = x * share[:, :1] + y * share[:, 1:]
        x = _resized(x, size)
        return apply("ReviewKD", level, self.expand, x), x


def _convolution(inputs: int, outputs: int, size: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    return x if x.shape[2:] == size else F.interpolate(x, tuple(size), mode="nearest")


def _hierarchical(s: Tensor, t: Tensor) -> Tensor:
    """HCL: MSE of the maps and of their pools."""
    loss, share, total = mean((s - t).square()), 1.0, 1.0
    for size in (4, 2, 1):
        if size < s.shape[2]:
            share /= 2
            total += share
            small_s, small_t = (F.adaptive_avg_pool2d(x, size) for x in (s, t))
            loss = loss + share * mean((small_s - small_t).square())
    return loss / total
