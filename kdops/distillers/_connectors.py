"""Connectors between student and teacher maps: 1x1 convolutions for channels, pooling for sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kdops.distillers._base import Distiller, Pair, as_list, full, shapes


def pointwise(inputs: int, outputs: int, *, batch_norm: bool = False) -> nn.Sequential:
    """1x1 convolution without bias, then an optional BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs)) if batch_norm else nn.Sequential(conv)


def channel_lists(
    method: str, student: int | Sequence[int], teacher: int | Sequence[int]
) -> list[tuple[int, int]]:
    """Pair the channel numbers of the levels."""
    s, t = as_list(student), as_list(teacher)
    if len(s) != len(t) or not s:
        raise ValueError(
            f"{method}: student_channels has {len(s)} levels and teacher_channels {len(t)}"
        )
    return list(zip(s, t, strict=True))


def apply(connector: nn.Module, x: Tensor) -> Tensor:
    """Run a connector in the type of its weights; the result is fp32 or wider."""
    weight = next(connector.parameters(), None)
    return full(connector(x if weight is None else x.to(weight.dtype)))


def pool_pair(s: Tensor, t: Tensor) -> Pair:
    """Average-pool the larger map to the smaller, in each spatial dimension."""
    if s.shape[2:] == t.shape[2:] or s.ndim != 4 or t.ndim != 4:
        return s, t
    size = (min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3]))
    return F.adaptive_avg_pool2d(s, size), F.adaptive_avg_pool2d(t, size)


class ConnectedDistiller(Distiller):
    """A method that needs equal channels at every level, with optional 1x1 connectors.

    Given both channel lists, levels with different channels get a trained 1x1 convolution on the
    student; without them different channels are an error. from_sample infers both.
    """

    def __init__(
        self,
        student_channels: int | Sequence[int] | None = None,
        teacher_channels: int | Sequence[int] | None = None,
        *,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(weights=weights)
        self.connectors = connectors(self.name, student_channels, teacher_channels)

    def connect(self, pairs: Sequence[Pair]) -> list[Pair]:
        return connect(self, self.connectors, pairs)


def connectors(
    method: str,
    student_channels: int | Sequence[int] | None,
    teacher_channels: int | Sequence[int] | None,
) -> nn.ModuleList:
    """One module per level, Identity where the channels agree; empty without channel numbers."""
    if student_channels is None and teacher_channels is None:
        return nn.ModuleList()
    if student_channels is None or teacher_channels is None:
        raise ValueError(f"{method}: give student_channels and teacher_channels, or neither")
    pairs = channel_lists(method, student_channels, teacher_channels)
    return nn.ModuleList(nn.Identity() if a == b else pointwise(a, b) for a, b in pairs)


def connect(method: Distiller, modules: nn.ModuleList, pairs: Sequence[Pair]) -> list[Pair]:
    """Student maps with the teacher's channels, or a ValueError that names the level."""
    if len(modules) not in (0, len(pairs)):
        raise ValueError(f"{method.name}: {len(modules)} connectors for {len(pairs)} levels")
    if len(modules):
        pairs = [(apply(m, s), t) for m, (s, t) in zip(modules, pairs, strict=True)]
    for i, (s, t) in enumerate(pairs):
        if s.shape[1] != t.shape[1]:
            raise ValueError(
                f"{method.name}: level {i}: the student has {s.shape[1]} channels and the teacher "
                f"{t.shape[1]} (maps {shapes(s, t)}); choose layers of equal channels, or pass "
                "student_channels and teacher_channels (or use from_sample) for a 1x1 connector"
            )
    return list(pairs)
