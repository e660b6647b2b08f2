"""What a network gets of a loader's batch, and what is read of its output.

A batch is a tensor, a tuple or list (inputs, target, ...) or a dict by the names of the network's
arguments, as the loaders of Hugging Face give it.
"""

from __future__ import annotations

import inspect
from collections.abc import Container
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TARGETS = ("labels", "label", "target")
INDEX = "sample_index"  # the name in a dict of which samples these are


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
        known = inspect.signature(model.forward).parameters if with_target else ()
        return model(**inputs_of(batch, known))
    return model(batch[0] if isinstance(batch, (tuple, list)) else batch)


def inputs_of(batch: Any, known: Container[str] = ()) -> Any:
    """What run gives to a network: of a dict neither target nor index, unless they are known."""
    if isinstance(batch, dict) or hasattr(batch, "keys"):
        hidden = {*TARGETS, INDEX}
        return {k: batch[k] for k in batch.keys() if k not in hidden or k in known}  # noqa: SIM118
    return batch[0] if isinstance(batch, (tuple, list)) else batch


def target_of(batch: Any) -> Any:
    """The target, None where the batch has none."""
    if isinstance(batch, dict):
        return next((batch[name] for name in TARGETS if name in batch), None)
    return batch[1]


def mask_of(batch: Any) -> Tensor | None:
    """Which tokens count, (B, N)."""
    return batch.get("attention_mask") if isinstance(batch, dict) else None


def logits_of(output: Any) -> Tensor | None:
    """A tensor itself, what a dataclass or dict calls logits, or the first tensor of a tuple."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)):
        return logits_of(output[0]) if output else None
    return _part(output, "logits")


def task_loss(output: Any, batch: Any) -> Tensor:
    """The loss that a network computed, or the cross-entropy of its logits with the target."""
    loss = _part(output, "loss")
    if loss is not None:
        return loss
    logits, target = logits_of(output), target_of(batch)
    if logits is None or not isinstance(target, Tensor):
        raise ValueError(
            f"fit: found no loss, or no logits and target, in a {type(output).__name__} and a "
            f"{type(batch).__name__}; pass step=, which returns both losses"
        )
    if target.ndim == logits.ndim - 1 and target.shape == logits.shape[:-1] != _by_channels(logits):
        logits = logits.movedim(-1, 1)  # of tokens, the classes last
    return F.cross_entropy(logits, target)


def _by_channels(logits: Tensor) -> tuple[int, ...]:
    """The shape of a target for logits (B, classes, *S)."""
    return (logits.shape[0], *logits.shape[2:])


def _part(output: Any, name: str) -> Tensor | None:
    found = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
    return found if isinstance(found, Tensor) else None
