"""What a forward keeps for its derivatives: tensors where autograd watches them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

TENSOR = object()  # where a tensor stood among saved values


def save(ctx: Any, values: Sequence[Any]) -> None:
    """Keeps tensors where autograd watches them, and everything else beside."""
    ctx.others = [TENSOR if isinstance(v, Tensor) else v for v in values]
    ctx.save_for_backward(*[v for v in values if isinstance(v, Tensor)])


def saved(ctx: Any) -> list[Any]:
    tensors = iter(ctx.saved_tensors)
    return [next(tensors) if value is TENSOR else value for value in ctx.others]


class _Alive:
    """A ctx whose saved tensors are those of the levels of torch.func that still run."""

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ctx, name)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        unwrap = torch._C._functorch.unwrap_if_dead
        return tuple(unwrap(t) if isinstance(t, Tensor) else t for t in self.ctx.saved_tensors)


def after_its_level(backward: Callable[..., Any]) -> Callable[..., Any]:
    """`backward`, also right where the level of torch.func that saved its tensors has ended.

    torch.func.vjp pulls back after its end. A wrapper that it left says of itself that nobody
    watches it, which is not so for the tensor inside.
    """

    def run(ctx: Any, *cotangents: Any) -> Any:
        return backward(_Alive(ctx), *cotangents)

    return run
