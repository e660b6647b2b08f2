"""What a network gets of a loader's batch, and what is read of its output.

A batch is a tensor, a tuple or list (inputs, target, ...) or a dict by the names of the network's
arguments, as the loaders of Hugging Face give it.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

TARGETS = ("labels", "label", "target")


def on_device(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on a device."""
    if isinstance(batch, dict) or hasattr(batch, "keys"):
        return {name: on_device(batch[name], device) for name in batch.keys()}  # noqa: SIM118
    if isinstance(batch, (tuple, list)):
        return [on_device(part, device) for part in batch]
    return batch.to(device, non_blocking=True) if isinstance(batch, Tensor) else batch


def run(model: nn.Module, batch: Any, *, with_target: bool = False) -> Any:
    """The model's output for a batch; with_target: a dict's target goes along where the model
    takes it, which then computes its own loss."""
    if isinstance(batch, dict):
        known = inspect.signature(model.forward).parameters if with_target else {}
        return model(**{k: v for k, v in batch.items() if k not in TARGETS or k in known})
    return model(batch[0] if isinstance(batch, (tuple, list)) else batch)


def target_of(batch: Any) -> Any:
    """The target, None where the batch has none."""
    if isinstance(batch, dict):
        return next((batch[name] for name in TARGETS if name in batch), None)
    return batch[1]


def mask_of(batch: Any) -> Tensor | None:
    """Which tokens count, (B, N)."""
    return batch.get("attention_mask") if isinstance(batch, dict) else None


def part_of(output: Any, name: str) -> Any:
    """What an output, a dataclass or dict, has under a name; None where it has nothing."""
    found = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
    return found if isinstance(found, Tensor) else None
