"""What every op does with its arguments first.

Checks with one voice: every message names op, argument, what was expected and found. Below them,
the dtype and the shape in which an op computes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
HALVES = (torch.float16, torch.bfloat16)  # computed in float32
_NAMES = [str(dtype).removeprefix("torch.") for dtype in FLOATS]


def describe(value: object) -> str:
    """How a message shows an argument: a tensor's shape and rank, otherwise the value's type."""
    if isinstance(value, Tensor):
        return f"{list(value.shape)} ({value.dim()}-D)"
    return f"{type(value).__name__}"


def tensor(op: str, name: str, value: object, of_complex: str = "") -> Tensor:
    """`value` as a dense tensor of real numbers, or TypeError; of_complex: the end of its message
    for complex ones."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: expected {name} to be a Tensor, got {describe(value)}")
    if value.dtype not in FLOATS:
        advice = of_complex if value.is_complex() else ""
        raise TypeError(
            f"{op}: expected {name} of dtype {', '.join(_NAMES[:-1])} or {_NAMES[-1]}, "
            f"got {str(value.dtype).removeprefix('torch.')}{advice}"
        )
    if value.layout is not torch.strided:
        layout = str(value.layout).removeprefix("torch.")
        raise TypeError(
            f"{op}: expected {name} to be dense, got layout {layout}: call {name}.to_dense()"
        )
    return value


def rank(op: str, name: str, value: Tensor, shape: str, low: int, high: int | None = None) -> None:
    """`value` has `low` dimensions, or low..high, or at least `low` (high = -1)."""
    dim = value.dim()
    top = low if high is None else high
    if dim < low or (top >= 0 and dim > top):
        raise ValueError(f"{op}: expected {name} of shape {shape}, got {describe(value)}")


def same_kind(op: str, **tensors: Tensor) -> None:
    """All tensors share one dtype and one device."""
    (first_name, first), *rest = tensors.items()
    for name, value in rest:
        if value.dtype != first.dtype:
            raise TypeError(
                f"{op}: expected {name} of the dtype of {first_name}, {first.dtype}, "
                f"got {value.dtype}"
            )
        same_device(op, **{first_name: first, name: value})


def same_device(op: str, **tensors: Tensor) -> None:
    (first_name, first), *rest = tensors.items()
    for name, value in rest:
        if value.device != first.device:
            raise ValueError(
                f"{op}: expected {name} on the device of {first_name}, {first.device}, "
                f"got {value.device}"
            )


def same_size(op: str, what: str, **sizes: int) -> None:
    """All sizes agree; `what` says which size is meant ("batch size", "channels", ...)."""
    (first_name, first), *rest = sizes.items()
    for name, size in rest:
        if size != first:
            raise ValueError(
                f"{op}: expected {first_name} and {name} with the same {what}, got {first} and "
                f"{size}"
            )


def option(op: str, name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        options = ", ".join(map(repr, allowed))
        raise ValueError(f"{op}: expected {name} to be one of {options}, got {value!r}")


def positive(op: str, name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{op}: expected {name} > 0, got {value}")


# What follows is called by every op at every call. It asks torch for nothing that changes nothing:
# a Tensor.to, detach or flatten costs a microsecond or two even where its result is its input.


def widened(x: Tensor) -> Tensor:
    """Half types are computed in float32."""
    return x.float() if x.dtype in HALVES else x


def of_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in this dtype."""
    return x if x.dtype == dtype else x.to(dtype)


def flat(f: Tensor) -> Tensor:
    """Maps (B, C, *S) with their positions in one dimension, (B, C, L)."""
    return f if f.dim() == 3 else f.flatten(2)


def constant(x: Tensor) -> Tensor:
    """x without its history."""
    has_history = x.requires_grad or torch._C._are_functorch_transforms_active()
    return x.detach() if has_history or forward_ad._current_level >= 0 else x


def outside_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast our ops run in float32: half inputs are widened, as for torch's own losses."""
    if not torch._C._is_any_autocast_enabled():
        return tensors
    device = tensors[0].device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return tuple(t.float() if t.dtype in HALVES else t for t in tensors)
    return tensors


def computed(x: Tensor) -> tuple[Tensor, torch.dtype]:
    """x as an op of one tensor computes with it, and the dtype of the result."""
    if x.dtype in HALVES:
        (x,) = outside_autocast(x)
    return widened(x), x.dtype
