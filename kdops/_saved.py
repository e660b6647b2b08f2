"""What a forward keeps for its derivatives: tensors where autograd watches them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

TENSOR = object()  # where a tensor stood among saved values


def save(ctx: Any, values: Sequence[Any]) -> None:
    """Keeps tensors where autograd watches them, and everything else beside."""
    ctx.others = [TENSOR if isinstance(v, Tensor) else v for v in values]
    ctx.save_for_backward(*[v for v in values if isinstance(v, Tensor)])


def saved(ctx: Any) -> list[Any]:
    tensors = iter(ctx.saved_tensors)
    return [next(tensors) if value is TENSOR else value for value in ctx.others]
