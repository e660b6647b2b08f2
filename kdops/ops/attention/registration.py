"""Backends of the attention map, and what torch must know of it beyond its kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops import _backends, _library
from kdops._autograd import loop_vmap, loss_op, map_op, wants_grad
from kdops.ops.attention import gradient, reference


def _native(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    if device != "cpu":
        return "it has a CPU kernel only; on a GPU plain PyTorch serves"
    return _backends.native_obstacle(device, dtype, (torch.float32, torch.float64))


_backends.register("attention_map", native=_native, typical_sizes=(128, 64, 1024))
_backends.register("attention_loss", native=_native, typical_sizes=(128, 64, 1024))


def attention_map(x: Tensor, p: float, largest: bool) -> Tensor:
    """x (B, C, L), float32 or float64 -> (B, L)."""
    if _backends.choose("attention_map", x.device.type, x.dtype, *x.shape) == "native":
        out: Tensor = _attention_op(x, p, largest)
        return out
    return reference.attention_map(x, p, largest)


def attention_loss(
    student: Tensor, teacher: Tensor, p: float, largest: bool, paper: bool, coefficient: float
) -> Tensor:
    """reference.attention_loss on the backend that serves it; float32 or float64."""
    options = (p, largest, paper, coefficient)
    device, dtype = student.device.type, student.dtype
    if _backends.choose("attention_loss", device, dtype, *student.shape) == "native":
        loss: Tensor = _loss_op(student, teacher, *options, wants_grad(student))[0]
        return loss
    with torch.autocast(device, enabled=False):
        return reference.attention_loss(student, teacher, *options)


if not _library.missing:

    @torch.library.register_fake("kdops::attention_map")
    def _(x: Tensor, p: float, largest: bool) -> Tensor:
        return x.new_empty((x.shape[0], x.shape[2]))

    @torch.library.register_fake("kdops::attention_map_backward")
    def _(grad: Tensor, x: Tensor, p: float, largest: bool) -> Tensor:
        return _gradient_like(x)

    @torch.library.register_fake("kdops::attention_loss")
    def _(student: Tensor, teacher: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
        gradient = _gradient_like(student) if options[-1] else student.new_empty(0)
        return student.new_empty(()), gradient

    def _gradient_like(x: Tensor) -> Tensor:
        """As x lies: positions innermost, or channels innermost."""
        batch, channels, length = x.shape
        if x.stride(2) == 1 or x.stride(1) != 1:
            return x.new_empty((batch, channels, length))
        return x.new_empty((batch, length, channels)).mT

    def _loss_formula(*inputs: Any) -> Tensor:
        return gradient.attention_loss_gradient(*inputs[:6])

    def _loss_vmap(*arguments: Any) -> Any:
        return loop_vmap(_loss_op)(*arguments)

    _loss_op = loss_op("attention_loss", formula=_loss_formula, vmap=_loss_vmap)
    _attention_op = map_op("attention_map", formula=gradient.attention_map_backward)
