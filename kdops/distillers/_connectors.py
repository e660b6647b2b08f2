"""Connectors between student and teacher maps: 1x1 convolutions for channels, pooling for sizes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdops._layout import is_tokens
from kdops._maths import of_one_size
from kdops.distillers._base import Distiller, Pair, as_list, full, shapes

NEEDS_GRID = (
    "; tokens need a grid here: FeatureTap(..., layout='tokens', prefix=..., grid='square') or "
    "tokens_to_maps"
)


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


def apply(method: str, level: int, connector: nn.Module, x: Tensor) -> Tensor:
    """Run a connector in the type of its weights; the result has that of x, fp32 or wider.

    x has the channels it was built for (Distiller.pairs sees to that).
    """
    norms = [m for m in connector.modules() if isinstance(m, _BatchNorm) and m.training]
    if norms and x.numel() == x.shape[1]:
        raise ValueError(
            f"{method}: level {level}: one value per channel, {shapes(x)}, has no variance for "
            "the connector's BatchNorm in training; drop the last incomplete batch (drop_last=True "
            "in the loader), or call eval() on the method"
        )
    weight = next(connector.parameters(), None)
    return full(connector(x if weight is None else x.to(weight.dtype))).to(full(x).dtype)


def apply_pointwise(method: str, level: int, connector: nn.Module, x: Tensor) -> Tensor:
    """apply, for 1x1 convolutions, which know channels only: x is (B, C) or (B, C, *S)."""
    if x.ndim == 4:
        return apply(method, level, connector, x)
    flat = x[..., None, None] if x.ndim == 2 else x.flatten(2)[..., None]
    y = apply(method, level, connector, flat)
    return y.reshape(y.shape[0], y.shape[1], *x.shape[2:])


def check_planes(method: str, level: int, side: str, x: Tensor) -> None:
    """x is what a two-dimensional convolution reads."""
    if x.ndim != 4:
        raise ValueError(
            f"{method}: level {level}: expected a {side} map of shape [B, C, H, W] for a "
            f"two-dimensional convolution, got {shapes(x)}{NEEDS_GRID if is_tokens(x) else ''}"
        )


def pool_pair(method: str, level: int, s: Tensor, t: Tensor) -> Pair:
    """Average-pool the larger map to the smaller, in each spatial dimension."""
    check_pooling(f"{method}: level {level}", s, t)
    if s.ndim != t.ndim:
        raise ValueError(
            f"{method}: level {level}: expected student and teacher maps with equally many "
            f"spatial dimensions, got {shapes(s, t)}"
        )
    return of_one_size(s, t, "avg")


def check_pooling(where: str, *maps: Tensor) -> None:
    """Neighbours in a sequence of tokens are no neighbours in the picture: it is not pooled."""
    if len({x.shape[2:] for x in maps}) > 1 and any(map(is_tokens, maps)):
        raise ValueError(f"{where}: tokens (B, D, N) {shapes(*maps)} differ in number{NEEDS_GRID}")


def pooled_pairs(method: str, pairs: Sequence[Pair]) -> list[Pair]:
    """pool_pair at every level."""
    return [pool_pair(method, i, s, t) for i, (s, t) in enumerate(pairs)]


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
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.channels, self.connectors = connectors(self.name, student_channels, teacher_channels)

    def connect(self, pairs: Sequence[Pair]) -> list[Pair]:
        return connect(self, self.connectors, pairs)


def connectors(
    method: str,
    student_channels: int | Sequence[int] | None,
    teacher_channels: int | Sequence[int] | None,
) -> tuple[list[tuple[int, int]] | None, nn.ModuleList]:
    """The channels and one module per level, Identity where they agree; none without numbers."""
    if student_channels is None and teacher_channels is None:
        return None, nn.ModuleList()
    if student_channels is None or teacher_channels is None:
        raise ValueError(f"{method}: give student_channels and teacher_channels, or neither")
    pairs = channel_lists(method, student_channels, teacher_channels)
    return pairs, nn.ModuleList(nn.Identity() if a == b else pointwise(a, b) for a, b in pairs)


def connect(method: Distiller, modules: nn.ModuleList, pairs: Sequence[Pair]) -> list[Pair]:
    """Student maps with the teacher's channels, or a ValueError that names the level."""
    if len(modules):
        rows = enumerate(zip(modules, pairs, strict=True))
        pairs = [(apply_pointwise(method.name, i, m, s), t) for i, (m, (s, t)) in rows]
    for i, (s, t) in enumerate(pairs):
        if s.shape[1] != t.shape[1]:
            raise ValueError(
                f"{method.name}: level {i}: the student has {s.shape[1]} channels and the teacher "
                f"{t.shape[1]} (maps {shapes(s, t)}); choose layers of equal channels, or pass "
                "student_channels and teacher_channels (or use from_sample) for a 1x1 connector"
            )
    return list(pairs)
