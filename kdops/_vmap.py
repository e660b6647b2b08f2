"""Rules that two kinds of ops share for torch.func.vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Outputs = Any  # a Tensor or a tuple of tensors
Vmap = Callable[..., tuple[Outputs, Any]]
VmapOf = Callable[[Callable[..., Outputs]], Vmap]  # one of the rules below, still without its op


def as_tuple(value: Outputs) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def fold_vmap(apply: Callable[..., Outputs]) -> Vmap:
    """vmap for ops whose tensors all lead with a batch: the mapped dimension joins it."""

    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Outputs, Any]:
        size = info.batch_size

        def fold(value: Any, dim: int | None) -> Any:
            if not isinstance(value, Tensor):
                return value
            full = value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
            return full.flatten(0, 1)

        folded = [fold(v, d) for v, d in zip(inputs, in_dims, strict=True)]
        outputs = apply(*folded)
        if isinstance(outputs, Tensor):
            return _unfold(outputs, size), 0
        return tuple(_unfold(o, size) for o in outputs), (0,) * len(outputs)

    return vmap


def _unfold(value: Tensor, size: int) -> Tensor:
    return value.reshape(size, value.shape[0] // max(size, 1), *value.shape[1:])


def loop_vmap(apply: Callable[..., Outputs]) -> Vmap:
    """vmap for ops without a batch dimension: one call per mapped index."""

    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Outputs, Any]:
        def pick(value: Any, dim: int | None, i: int) -> Any:
            return value.select(dim, i) if isinstance(value, Tensor) and dim is not None else value

        results = [
            as_tuple(apply(*(pick(v, d, i) for v, d in zip(inputs, in_dims, strict=True))))
            for i in range(info.batch_size)
        ]
        stacked = tuple(torch.stack(column) for column in zip(*results, strict=True))
        return (stacked, (0,) * len(stacked)) if len(stacked) > 1 else (stacked[0], 0)

    return vmap


def leading_vmap(apply: Callable[..., Outputs]) -> Vmap:
    """vmap for ops that take any leading dimensions: the mapped one becomes the first."""

    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Outputs, Any]:
        def lead(value: Any, dim: int | None) -> Any:
            if not isinstance(value, Tensor):
                return value
            if dim is None:
                return value.expand(info.batch_size, *value.shape)
            return value.movedim(dim, 0)

        outputs = apply(*(lead(v, d) for v, d in zip(inputs, in_dims, strict=True)))
        return outputs, 0 if isinstance(outputs, Tensor) else (0,) * len(outputs)

    return vmap
