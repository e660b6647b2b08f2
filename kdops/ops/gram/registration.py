"""The gram ops: their shapes, gradients and backends."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from kdops._autograd import loss_op, map_op, wants_grad
from kdops._check import FLOATS
from kdops._op import Op
from kdops.ops.gram import gradient, reference


def gram(x: Tensor, y: Tensor | None) -> Tensor:
    """reference.gram on the backend that serves it. Both (B, C, *S)."""
    batch, c1, *positions = x.shape
    c2 = c1 if y is None else y.shape[1]
    run = _GRAM.run if _GRAM.serves(x, batch, c1, c2, prod(positions)) else _GRAM.plain
    out: Tensor = run(x, y)
    return out


def gram_loss(x1: Tensor, x2: Tensor | None, y1: Tensor, y2: Tensor | None, variant: int) -> Tensor:
    """reference.gram_loss on the backend that serves it. All (B, C, *S), float32 or float64."""
    batch, c1, *positions = x1.shape
    c2 = c1 if x2 is None else x2.shape[1]
    length = prod(positions)
    loss: Tensor
    if not _GRAM_LOSS.serves(x1, batch, c1, c2, length):
        loss = _GRAM_LOSS.plain(x1, x2, y1, y2, variant)
        return loss
    watched = (x1,) if x2 is None else (x1, x2)
    squares = variant != reference.COLUMNS
    by_positions = squares and _by_positions(c1, c2, length) and prod(y1.shape[2:]) == length
    loss = _GRAM_LOSS.run(x1, x2, y1, y2, variant, by_positions, wants_grad(*watched))[0]
    return loss


def nst_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """reference.nst_loss on the backend that serves it. Both (B, C, *S), float32 or float64."""
    batch, channels, *positions = student.shape
    length, others = prod(positions), teacher.shape[1]
    loss: Tensor
    if not _NST_LOSS.serves(student, batch, channels, others, length):
        loss = _NST_LOSS.plain(student, teacher)
        return loss
    by_channels = others == channels and 10 * channels < 4 * length  # see _by_positions
    loss = _NST_LOSS.run(student, teacher, by_channels, wants_grad(student))[0]
    return loss


def _by_positions(c1: int, c2: int, length: int) -> bool:
    """Whether length x length products cost fewer operations than the Gram matrices.

    By channels: two products and two gradients of C1 C2 L; by positions six products and four
    gradients of (C1 + C2) L² / 2.
    """
    return 5 * (c1 + c2) * length < 4 * c1 * c2


# measured: up to 5 times faster than widening to float32; accumulates in float32 as well
_MULTIPLIES_BFLOAT16 = bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def _gram_limit(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    if device == "cpu" and dtype == torch.bfloat16 and _MULTIPLIES_BFLOAT16:
        return "this processor multiplies bfloat16 itself, which torch's product uses"
    return None


def _fake_gram(x: Tensor, y: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], (x if y is None else y).shape[1]))


def _fake_gram_backward(grad: Tensor, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0 if y is None else y.shape)


def _cotangent_for(x: Tensor) -> Tensor:
    """As the kernels for the CPU make it (csrc/gram/flat_maps.h): with the channels innermost where
    those of x are (tokens seen as maps, channels_last), else contiguous."""
    expected = channels = x.shape[1]
    inner = x.device.type == "cpu" and channels > 1 and x.stride(1) == 1
    for size, stride in zip(x.shape[:1:-1], x.stride()[:1:-1], strict=True):
        if size != 1:
            inner = inner and stride == expected
            expected = expected * size
    if not inner or expected == channels:
        return x.new_empty(x.shape)
    return x.new_empty((x.shape[0], *x.shape[2:], channels)).movedim(-1, 1)


def _fake_gram_loss(
    x1: Tensor, x2: Tensor | None, y1: Tensor, y2: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = options[-1]
    g1 = _cotangent_for(x1) if gradients else x1.new_empty(0)
    g2 = _cotangent_for(x2) if gradients and x2 is not None else x1.new_empty(0)
    return x1.new_empty(()), g1, g2


def _fake_nst_loss(student: Tensor, teacher: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    cotangent = _cotangent_for(student) if options[-1] else student.new_empty(0)
    return student.new_empty(()), cotangent


def _gram_loss_formula(*inputs: Any) -> tuple[Tensor, Tensor]:
    return gradient.gram_loss_gradients(*inputs[:5])


def _nst_loss_formula(*inputs: Any) -> Tensor:
    return gradient.nst_gradient(*inputs[:2])


_GRAM = Op(
    "gram",
    fake=_fake_gram,
    backward_fake=_fake_gram_backward,
    derivative=partial(map_op, formula=gradient.gram_backward),
    reference=reference.gram,
    dtypes=FLOATS,
    limit=_gram_limit,
    typical_sizes=(128, 16, 16, 1024),
)
_GRAM_LOSS = Op(
    "gram_loss",
    fake=_fake_gram_loss,
    derivative=partial(loss_op, formula=_gram_loss_formula),
    reference=reference.gram_loss,
    typical_sizes=(128, 64, 64, 256),
)
_NST_LOSS = Op(
    "nst_loss",
    fake=_fake_nst_loss,
    derivative=partial(loss_op, formula=_nst_loss_formula),
    reference=reference.nst_loss,
    typical_sizes=(128, 64, 64, 256),
)
