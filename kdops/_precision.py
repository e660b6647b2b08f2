"""Keeps plain PyTorch formulas in the precision of their arguments where autocast is on.

The kernels compute in float32 under autocast. So do the formulas that stand in for them, forward,
backward and in forward mode, instead of letting autocast take their products to a half type.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def full_precision(*values: Any) -> AbstractContextManager[Any]:
    """A context without autocast for the device of the first tensor among `values`."""
    if torch._C._is_any_autocast_enabled():
        device = next((v.device.type for v in values if isinstance(v, Tensor)), "cpu")
        if torch.amp.is_autocast_available(device):  # not for meta
            return torch.autocast(device, enabled=False)
    return nullcontext()


def in_full_precision(function: Callable[..., Result]) -> Callable[..., Result]:
    """`function`, of tensors first, as autocast leaves it alone."""

    @wraps(function)
    def run(*values: Any, **options: Any) -> Result:
        with full_precision(*values):
            return function(*values, **options)

    return run
