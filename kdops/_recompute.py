"""Chunks of a computation whose intermediates are made again in the backward rather than kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 1 << 21  # numbers in one temporary: 8 MB of float32


def rows_per_chunk(others: int) -> int:
    """How many rows a chunk holds where each row comes with so many numbers."""
    return max(1, CHUNK // max(others, 1))


def row_blocks(count: int, others: int) -> list[slice]:
    """Blocks of `count` rows whose products with so many others fit in a chunk."""
    rows = rows_per_chunk(others)
    return [slice(i, i + rows) for i in range(0, count, rows)]


def without_storing(parts: int, function: Callable[..., Tensor], *args: object) -> Tensor:
    """function(*args); one of several parts is recomputed in the backward, where torch can (not
    under torch.func, which knows no saved-tensor hooks)."""
    if parts > 1 and torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active():
        recomputed: Tensor = checkpoint(function, *args, use_reentrant=False)
        return recomputed
    return function(*args)
