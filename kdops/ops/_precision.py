"""The precision that references and formulas compute in.

The kernels take what cancels in float32 from differences of rows. Plain tensor expressions do the
same work in float64: sums that lose half of their digits still have more than float32 keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_WITHOUT_DOUBLE = ("mps",)


def in_double(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
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

    return cast(Callable[_Arguments, _Result], wide)


def _is_single(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float32


def _each(result: Any) -> Any:
    return result.float() if isinstance(result, Tensor) else tuple(r.float() for r in result)
