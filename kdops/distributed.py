"""Relations over the global batch: all-gather with gradient over torch.distributed.

Scaling. Every process computes the same loss of the gathered batch. The backward of gather_batch
sums the processes' gradients and hands each its slice, so a process holds world_size times its
share of the single-process gradient; DistributedDataParallel averages over processes, and the two
factors cancel: parameters get exactly the gradient of one process with the whole batch. Without
DDP divide by the world size once, or average the gradients with ``average_gradients``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

Group = Any  # dist.ProcessGroup; None is the default group


def world_size(group: Group = None) -> int:
    """The number of processes; 1 without a process group."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        rank = dist.get_rank(group)
        rows = x.new_tensor([x.shape[0]], dtype=torch.int64)
        counts = [torch.empty_like(rows) for _ in range(world_size(group))]
        dist.all_gather(counts, rows, group=group)
        sizes = [int(n) for n in torch.cat(counts)]
        ctx.group, ctx.begin, ctx.rows = group, sum(sizes[:rank]), sizes[rank]
        padded = x.new_zeros(max(sizes), *x.shape[1:])  # all_gather wants equal shapes
        padded[: x.shape[0]] = x
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.begin : ctx.begin + ctx.rows], None


def gather_batch(x: Tensor, group: Group = None) -> Tensor:
    """All processes' rows of x, in rank order: (B_local, ...) -> (ΣB_local, ...), with gradient.

    Local batches may differ in size, empty included; the other dimensions and the dtype must
    agree. A no-op without a process group or with one process. Every process must call it, and
    must run the backward: both are collective. Double backward raises an error.

    >>> loss = RKD()(gather_batch(student), gather_batch(teacher))    # or RKD(group=group)
    """
    if world_size(group) == 1:
        return x
    gathered: Tensor = _Gather.apply(x.contiguous(), group)  # type: ignore[no-untyped-call]
    return gathered


def over_group(x: Tensor, group: Group = None) -> Tensor:
    """The ``group=`` argument of the relational distillers.

    None: the local batch. "world": gather over the default group, if there is one by the time of
    the call. A process group: gather over it.
    """
    if group is None:
        return x
    return gather_batch(x, None if isinstance(group, str) else group)


def average_gradients(gradients: Sequence[Tensor | None], group: Group = None) -> None:
    """Average gradients over the processes in place, one collective per dtype and device."""
    if world_size(group) == 1:
        return
    buckets: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for g in gradients:
        if g is not None:
            buckets.setdefault((g.dtype, g.device), []).append(g)
    for bucket in buckets.values():
        flat = torch.cat([g.reshape(-1) for g in bucket])
        dist.all_reduce(flat, group=group)
        parts = torch.split(flat / world_size(group), [g.numel() for g in bucket])
        for g, part in zip(bucket, parts, strict=True):
            g.copy_(part.view_as(g))


def broadcast_state(module: torch.nn.Module, group: Group = None) -> None:
    """Give every process the parameters and buffers of the group's first process."""
    if world_size(group) == 1:
        return
    source = dist.get_global_rank(group, 0) if group is not None else 0
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor, source, group=group)
