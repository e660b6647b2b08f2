"""The precision that plain PyTorch references and formulas compute in.

The kernels compute in float32 under autocast. So do the formulas that stand in for them, forward,
backward and in forward mode, instead of letting autocast take their products to a half type.
And what cancels in float32 the kernels take from differences of rows. Plain tensor expressions do
the same work in float64: sums that lose half of their digits still have more than float32 keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_WITHOUT_DOUBLE = ("mps",)


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


def in_double(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`function` with its float32 tensors computed in float64, and the result in float32 again.

    Autocast leaves float64 alone. On devices without it the function stays in float32.
    """

    call = cast(Callable[..., Any], function)

    @wraps(function)
    def wide(*args: Any) -> Any:
        device = next(a.device.type for a in args if isinstance(a, Tensor))
        if device in _WITHOUT_DOUBLE:
            with torch.autocast(device, enabled=False):
                return call(*args)
        if not any(map(_is_single, args)):
            return call(*args)
        return _each(call(*(a.double() if _is_single(a) else a for a in args)))

    return cast(Callable[Arguments, Result], wide)


def _is_single(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float32


def _each(result: Any) -> Any:
    return result.float() if isinstance(result, Tensor) else tuple(r.float() for r in result)
