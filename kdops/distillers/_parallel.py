"""A method's own parameters stay equal in all processes (see kdops.distributed)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdops.distributed import Group, average_gradients, broadcast_state, world_size


def share_state(method: Any, _args: Any) -> None:
    """Forward pre-hook: before its first call the method takes the first process's state."""
    if not method._shared and _alone(method):
        broadcast_state(method, _group(method))
        method._shared = True
        if hasattr(method, "_ready"):  # whether it is prepared came with the state
            method._ready = None


def share_gradients(method: nn.Module, _args: Any, loss: Any) -> None:
    """Forward hook: the backward through this loss ends with the average over the processes."""
    if isinstance(loss, Tensor) and loss.requires_grad and _alone(method):
        own = _own_parameters(method)

        def average() -> None:
            gradients = [p.grad for p in own.values()]
            average_gradients(gradients, _group(method), names=list(own))

        engine: Any = torch.autograd.Variable._execution_engine
        loss.register_hook(lambda _: engine.queue_callback(average))


def _alone(method: Any) -> bool:
    """Whether there are several processes and nobody else looks after the parameters."""
    if method.synchronise is None or not torch.is_grad_enabled():
        return False
    if world_size(_group(method)) == 1 or not _own_parameters(method):
        return False
    inside = DistributedDataParallel._get_active_ddp_module() is not None
    return not inside and not getattr(method, "_is_fsdp_managed_module", False)


def _group(method: Any) -> Group:
    return None if isinstance(method.synchronise, str) else method.synchronise


def _own_parameters(method: nn.Module) -> dict[str, nn.Parameter]:
    """The trained ones, without those of methods inside it, which see to themselves, and without
    those that are sharded already."""
    inner = [m for m in method.modules() if m is not method and hasattr(m, "synchronise")]
    others = {id(p) for m in inner for p in m.parameters()}
    return {
        f"{type(method).__name__}.{name}": p
        for name, p in method.named_parameters()
        if p.requires_grad and id(p) not in others and not hasattr(p, "device_mesh")
    }
