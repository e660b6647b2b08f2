"""Tells torch what it must know of the gram ops beyond their kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from kdops import _backends, _library
from kdops._autograd import map_op
from kdops._check import FLOATS
from kdops.ops.gram import gradient


def _native(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    return _backends.native_obstacle(device, dtype, FLOATS)


_backends.register("gram", native=_native, typical_sizes=(128, 16, 16, 1024))

if not _library.missing:

    @torch.library.register_fake("kdops::gram")
    def _(x: Tensor, y: Tensor | None, scale: float) -> Tensor:
        return x.new_empty((x.shape[0], x.shape[1], (x if y is None else y).shape[1]))

    @torch.library.register_fake("kdops::gram_backward")
    def _(grad: Tensor, x: Tensor, y: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
        return x.new_empty(x.shape), x.new_empty(0 if y is None else y.shape)

    gram_op = map_op("gram", formula=gradient.gram_backward)
