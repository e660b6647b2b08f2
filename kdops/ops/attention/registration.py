"""Backends of the attention map, and what torch must know of it beyond its kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops import _backends, _library
from kdops._autograd import custom_op, differentiated_again, map_op
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
    student: Tensor, teacher: Tensor, p: float, largest: bool, paper: bool, coefficient: float
) -> Tensor:
    """reference.attention_loss on the backend that serves it; float32 or float64."""
    options = (p, largest, paper, coefficient)
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
    for _name in ("attention_map", "attention_map_backward", "attention_loss"):
        _launcher = _backends.triton_launcher("kdops.ops.attention.triton", _name)
        torch.library.impl(f"kdops::{_name}", "CUDA", _launcher)

    @torch.library.register_fake("kdops::attention_map")
    def _(x: Tensor, p: float, largest: bool) -> Tensor:
        return x.new_empty((x.shape[0], x.shape[2]))

    @torch.library.register_fake("kdops::attention_map_backward")
    def _(grad: Tensor, x: Tensor, p: float, largest: bool) -> Tensor:
        return empty_gradient(x)

    @torch.library.register_fake("kdops::attention_loss")
    def _(student: Tensor, teacher: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
        return student.new_empty(()), student.new_empty((student.shape[0], student.shape[2]))

    def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs[:2], output[1])
        ctx.options = inputs[2:]

    def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
        student, teacher, pull = ctx.saved_tensors
        if differentiated_again():  # pull is a constant to autograd: the formula is not
            slope = gradient.attention_loss_gradient(student, teacher, *ctx.options)
            return (grad * slope, *[None] * 5)
        p, largest = ctx.options[:2]
        return (_attention_backward(grad * pull, student, p, largest), *[None] * 5)

    def _loss_vmap(*arguments: Any) -> Any:
        return loop_vmap(_loss_op)(*arguments)

    _attention_backward = torch.ops.kdops.attention_map_backward.default
    _loss_op = custom_op("attention_loss", setup=_setup, backward=_backward, vmap=_loss_vmap)
    _attention_op = map_op("attention_map", formula=gradient.attention_map_backward)
