"""The attention ops: their shapes, gradients and backends."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from kdops._autograd import custom_op, differentiated_again, map_op
from kdops._forward import refuse_derivatives
from kdops._op import Kernel, Op
from kdops._vmap import loop_vmap
from kdops.ops.attention import gradient, reference

_TRITON = "kdops.ops.attention.triton"
_TYPICAL = (128, 64, 1024)


def attention_map(x: Tensor, p: float, largest: bool) -> Tensor:
    """x (B, C, L), float32 or float64 -> (B, L)."""
    run = _MAP.run if _MAP.serves(x, *x.shape) else _MAP.plain
    out: Tensor = run(x, p, largest)
    return out


def attention_loss(
    student: Tensor, teacher: Tensor, p: float, largest: bool, paper: bool
) -> Tensor:
    """reference.attention_loss on the backend that serves it; float32 or float64."""
    loss: Tensor
    if _LOSS.serves(student, *student.shape):
        loss = _LOSS.run(student, teacher, p, largest, paper)[0]
    else:
        loss = _LOSS.plain(student, teacher, p, largest, paper)
    return loss


def empty_gradient(x: Tensor) -> Tensor:
    """Room for the cotangent of x (B, C, L), as x lies: positions innermost, or channels."""
    batch, channels, length = x.shape
    if x.stride(2) == 1 or x.stride(1) != 1:
        return x.new_empty((batch, channels, length))
    return x.new_empty((batch, length, channels)).mT


def _fake_map(x: Tensor, p: float, largest: bool) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2]))


def _fake_map_backward(grad: Tensor, x: Tensor, p: float, largest: bool) -> Tensor:
    return empty_gradient(x)


def _fake_loss(student: Tensor, teacher: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, length = student.shape
    pull, unit = student.new_empty((batch, length)), student.new_empty((batch,))
    return student.new_empty(()), pull, unit


def _fake_loss_backward(
    pull: Tensor, unit: Tensor, student: Tensor, p: float, largest: bool
) -> Tensor:
    return empty_gradient(student)


def _loss_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:2], *output[1:])
    ctx.options = inputs[2:]


def _loss_backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    student, teacher, pull, unit = ctx.saved_tensors
    if differentiated_again():  # pull is a constant to autograd: the formula is not
        slope = gradient.attention_loss_gradient(student, teacher, *ctx.options)
        return (grad * slope, *[None] * 4)
    p, largest = ctx.options[:2]
    return (_LOSS_BACKWARD.run(grad * pull, unit, student, p, largest), *[None] * 4)


_MAP = Op(
    "attention_map",
    fake=_fake_map,
    backward_fake=_fake_map_backward,
    derivative=partial(map_op, formula=gradient.attention_map_backward),
    reference=reference.attention_map,
    triton=_TRITON,
    typical_sizes=_TYPICAL,
)
_LOSS = Op(
    "attention_loss",
    fake=_fake_loss,
    derivative=partial(custom_op, setup=_loss_setup, backward=_loss_backward, vmap=loop_vmap),
    reference=reference.attention_loss,
    triton=_TRITON,
    typical_sizes=_TYPICAL,
)
_LOSS_BACKWARD = Kernel(
    "attention_loss_backward",
    fake=_fake_loss_backward,
    derivative=refuse_derivatives,
    triton=_TRITON,
)
