"""Backends of the attention map, and what torch must know of it beyond its kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops import _backends, _library
from kdops._autograd import custom_op, differentiated_again, map_op
from kdops._forward import refuse_derivatives
from kdops._precision import full_precision
from kdops._vmap import loop_vmap
from kdops.ops.attention import gradient, reference

_FLOATS = (torch.float32, torch.float64)


def _native(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    if device != "cpu":
        return "the C++ kernel runs on cpu; the GPU kernel is Triton's"
    return _backends.native_obstacle(device, dtype, _FLOATS)


def _triton(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    return _backends.triton_obstacle(device, dtype, _FLOATS)


for _name in ("attention_map", "attention_loss"):
    _backends.register(_name, native=_native, triton=_triton, typical_sizes=(128, 64, 1024))


def attention_map(x: Tensor, p: float, largest: bool) -> Tensor:
    """x (B, C, L), float32 or float64 -> (B, L)."""
    if _backends.choose_for("attention_map", x, *x.shape) != "reference":
        out: Tensor = _attention_op(x, p, largest)
        return out
    with full_precision(x):
        return reference.attention_map(x, p, largest)


def attention_loss(
    student: Tensor, teacher: Tensor, p: float, largest: bool, paper: bool
) -> Tensor:
    """reference.attention_loss on the backend that serves it; float32 or float64."""
    options = (p, largest, paper)
    if _backends.choose_for("attention_loss", student, *student.shape) != "reference":
        loss: Tensor = _loss_op(student, teacher, *options)[0]
        return loss
    with full_precision(student):
        return reference.attention_loss(student, teacher, *options)


def empty_gradient(x: Tensor) -> Tensor:
    """Room for the cotangent of x (B, C, L), as x lies: positions innermost, or channels."""
    batch, channels, length = x.shape
    if x.stride(2) == 1 or x.stride(1) != 1:
        return x.new_empty((batch, channels, length))
    return x.new_empty((batch, length, channels)).mT


if not _library.missing:
    _OPS = ("attention_map", "attention_loss")
    for _name in (*_OPS, *(f"{name}_backward" for name in _OPS)):
        _launcher = _backends.triton_launcher("kdops.ops.attention.triton", _name)
        torch.library.impl(f"kdops::{_name}", "CUDA", _launcher)

    @torch.library.register_fake("kdops::attention_map")
    def _(x: Tensor, p: float, largest: bool) -> Tensor:
        return x.new_empty((x.shape[0], x.shape[2]))

    @torch.library.register_fake("kdops::attention_map_backward")
    def _(grad: Tensor, x: Tensor, p: float, largest: bool) -> Tensor:
        return empty_gradient(x)

    @torch.library.register_fake("kdops::attention_loss")
    def _(student: Tensor, teacher: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
        batch, _, length = student.shape
        pull, unit = student.new_empty((batch, length)), student.new_empty((batch,))
        return student.new_empty(()), pull, unit

    @torch.library.register_fake("kdops::attention_loss_backward")
    def _(pull: Tensor, unit: Tensor, student: Tensor, p: float, largest: bool) -> Tensor:
        return empty_gradient(student)

    def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:2], *output[1:])
        ctx.options = inputs[2:]

    def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
        student, teacher, pull, unit = ctx.saved_tensors
        if differentiated_again():  # pull is a constant to autograd: the formula is not
            slope = gradient.attention_loss_gradient(student, teacher, *ctx.options)
            return (grad * slope, *[None] * 4)
        p, largest = ctx.options[:2]
        return (_loss_backward(grad * pull, unit, student, p, largest), *[None] * 4)

    def _loss_vmap(*arguments: Any) -> Any:
        return loop_vmap(_loss_op)(*arguments)

    refuse_derivatives("attention_loss_backward")
    _loss_backward = torch.ops.kdops.attention_loss_backward.default
    _loss_op = custom_op("attention_loss", setup=_setup, backward=_backward, vmap=_loss_vmap)
    _attention_op = map_op("attention_map", formula=gradient.attention_map_backward)
