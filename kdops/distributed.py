"""Relations over the global batch: all-gather with gradient over torch.distributed.

Scaling. Every process computes the same loss of the gathered batch. The backward of gather_batch
sums the processes' gradients and hands each its slice, so a process holds world_size times its
share of the single-process gradient; DistributedDataParallel averages over processes, and the two
factors cancel: parameters get exactly the gradient of one process with the whole batch. Without
DDP divide by the world size once, or average the gradients with ``average_gradients``.

Parameters of a method. A distiller outside DDP keeps its own parameters equal in all processes: it
takes those of the first process at its first call, and every backward() through its loss ends by
averaging their gradients, as DDP does. Wrapped in DDP, alone or as one module with the student, it
leaves both to DDP. ``method.synchronise`` is the group ("world"; None: the processes are on their
own, for methods that run on some of them only). Gradients taken by torch.autograd.grad are not
averaged: clip_to_main has group= for them.

Collective functions compare what the processes bring before they exchange it: if they disagree,
every process gets a RuntimeError that says who brought what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

Group = Any  # dist.ProcessGroup; None is the default group


def world_size(group: Group = None) -> int:
    """The number of processes; 1 without a process group."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def _agree(op: str, brought: Mapping[str, str], number: int, group: Group) -> list[int]:
    """Every process's number, once all are known to bring the same things.

    One collective of two integers; only a disagreement costs a second one, for its message.
    """
    device = dist.distributed_c10d._get_object_coll_device(group)
    digest = hashlib.sha256(repr(dict(brought)).encode()).digest()[:7]
    mine = torch.tensor([int.from_bytes(digest, "big"), number], dtype=torch.int64, device=device)
    parts = [torch.empty_like(mine) for _ in range(world_size(group))]
    dist.all_gather(parts, mine, group=group)
    rows = torch.stack(parts).tolist()
    if len({row[0] for row in rows}) > 1:
        found: list[Any] = [None] * len(rows)
        dist.all_gather_object(found, dict(brought), group=group)
        raise RuntimeError(f"{op}: the processes disagree on {_first_difference(found)}")
    return [row[1] for row in rows]


def _first_difference(found: Sequence[Mapping[str, str]]) -> str:
    """The first name that is not the same everywhere, and who has what, by rank in the group."""
    for name in dict.fromkeys(name for brought in found for name in brought):
        ranks: dict[str, list[int]] = {}
        for rank, brought in enumerate(found):
            ranks.setdefault(brought.get(name, "nothing"), []).append(rank)
        if len(ranks) > 1:
            return f"{name}: {'; '.join(f'{x} on ranks {where}' for x, where in ranks.items())}"
    return "the order of what they bring"


def _described(x: Tensor | None) -> str:
    if x is None:
        return "None"
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)} on {x.device.type}"


def _rows(x: Tensor) -> str:
    """What gather_batch needs alike in all processes."""
    gradient = "with" if x.requires_grad and torch.is_grad_enabled() else "without"
    shape = ", ".join(["rows", *map(str, x.shape[1:])]) if x.ndim else ""
    kind = f"{str(x.dtype).removeprefix('torch.')} [{shape}] on {x.device.type}"
    return f"{kind}, {gradient} gradient"


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int], group: Group) -> Tensor:
        rank = dist.get_rank(group)
        ctx.group, ctx.begin, ctx.rows = group, sum(sizes[:rank]), sizes[rank]
        padded = x.new_zeros(max(sizes), *x.shape[1:])  # all_gather wants equal shapes
        padded[: x.shape[0]] = x
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.begin : ctx.begin + ctx.rows], None, None


def gather_batch(x: Tensor, group: Group = None) -> Tensor:
    """All processes' rows of x, in rank order: (B_local, ...) -> (ΣB_local, ...), with gradient.

    Local batches may differ in size, empty included; the other dimensions, the dtype, the kind of
    device and whether a gradient is wanted must agree, or every process gets a RuntimeError that
    names both sides. A no-op without a process group or with one process. Every process must call
    it, and must run the backward: both are collective. Double backward raises an error.

    >>> student, teacher = gather_batch(student_embedding), gather_batch(teacher_embedding)
    >>> loss = RKD()(student, teacher)    # or RKD(group=group) of what is this process's own
    """
    if world_size(group) == 1:
        return x
    sizes = _agree("gather_batch", {"the tensor": _rows(x)}, x.shape[0] if x.ndim else 0, group)
    if not x.ndim:
        raise RuntimeError("gather_batch: expected tensors with a batch dimension, got 0-D ones")
    gathered: Tensor = _Gather.apply(x.contiguous(), sizes, group)  # type: ignore[no-untyped-call]
    return gathered


def over_group(x: Tensor, group: Group = None) -> Tensor:
    """The ``group=`` argument of the relational distillers.

    None: the local batch. "world": gather over the default group, if there is one by the time of
    the call. A process group: gather over it.
    """
    if group is None:
        return x
    return gather_batch(x, None if isinstance(group, str) else group)


def average_gradients(
    gradients: Sequence[Tensor | None], group: Group = None, *, names: Sequence[str] = ()
) -> None:
    """Average gradients over the processes in place, one collective per dtype and device.

    A gradient that is None must be None in all processes, and shapes and dtypes must agree, or
    every process gets a RuntimeError that names the first that differs (by names, else by number).
    """
    if world_size(group) == 1:
        return
    labels = names or [f"gradient {i}" for i in range(len(gradients))]
    brought = {name: _described(g) for name, g in zip(labels, gradients, strict=True)}
    _agree("average_gradients", brought, 0, group)
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
    state = dict([*module.named_parameters(), *module.named_buffers()])
    _agree("broadcast_state", {name: _described(x) for name, x in state.items()}, 0, group)
    source = dist.get_global_rank(group, 0) if group is not None else 0
    with torch.no_grad():
        for tensor in state.values():
            dist.broadcast(tensor, source, group=group)
