"""Backends of the attention map, and what torch must know of it beyond its kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from kdops import _backends, _library
from kdops._autograd import map_op
from kdops.ops.attention import gradient, reference


def _native(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    if device != "cpu":
        return "it has a CPU kernel only; on a GPU plain PyTorch serves"
    return _backends.native_obstacle(device, dtype, (torch.float32, torch.float64))


_backends.register("attention_map", native=_native, typical_sizes=(128, 64, 1024))


def attention_map(x: Tensor, p: float, largest: bool) -> Tensor:
    """x (B, C, L), float32 or float64 -> (B, L)."""
    if _backends.choose("attention_map", x.device.type, x.dtype, *x.shape) == "native":
        out: Tensor = _attention_op(x, p, largest)
        return out
    return reference.attention_map(x, p, largest)


if not _library.missing:

    @torch.library.register_fake("kdops::attention_map")
    def _(x: Tensor, p: float, largest: bool) -> Tensor:
        return x.new_empty((x.shape[0], x.shape[2]))

    @torch.library.register_fake("kdops::attention_map_backward")
    def _(grad: Tensor, x: Tensor, p: float, largest: bool) -> Tensor:
        batch, channels, length = x.shape
        if x.stride(2) == 1 or x.stride(1) != 1:
            return x.new_empty((batch, channels, length))
        return x.new_empty((batch, length, channels)).mT

    _attention_op = map_op("attention_map", formula=gradient.attention_map_backward)
