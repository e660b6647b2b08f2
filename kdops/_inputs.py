"""The dtype and the shape in which an op computes with its arguments.

Called by every op at every call: torch is asked for nothing that changes nothing. A Tensor.to,
detach or flatten costs a microsecond or two even where its result is its input.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

HALVES = (torch.float16, torch.bfloat16)  # computed in float32


def widened(x: Tensor) -> Tensor:
    """Half types are computed in float32."""
    return x.float() if x.dtype in HALVES else x


def of_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in this dtype."""
    return x if x.dtype == dtype else x.to(dtype)


def flat(f: Tensor) -> Tensor:
    """Maps (B, C, *S) with their positions in one dimension, (B, C, L)."""
    return f if f.dim() == 3 else f.flatten(2)


def constant(x: Tensor) -> Tensor:
    """x without its history."""
    has_history = x.requires_grad or torch._C._are_functorch_transforms_active()
    return x.detach() if has_history or forward_ad._current_level >= 0 else x


def outside_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast our ops run in float32: half inputs are widened, as for torch's own losses."""
    if not torch._C._is_any_autocast_enabled():
        return tensors
    device = tensors[0].device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return tuple(t.float() if t.dtype in HALVES else t for t in tensors)
    return tensors


def computed(x: Tensor) -> tuple[Tensor, torch.dtype]:
    """x as an op of one tensor computes with it, and the dtype of the result."""
    if x.dtype in HALVES:
        (x,) = outside_autocast(x)
    return widened(x), x.dtype
