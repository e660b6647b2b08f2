"""Checks of arguments, with one voice: messages name op, argument, what was expected and found."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
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
    dtype = first.dtype
    for name, value in rest:
        if value.dtype != dtype:
            raise TypeError(
                f"{op}: expected {name} of the dtype of {first_name}, {dtype}, got {value.dtype}"
            )
    same_device(op, **tensors)


def same_device(op: str, **tensors: Tensor) -> None:
    (first_name, first), *rest = tensors.items()
    device = first.device
    for name, value in rest:
        if value.device != device:
            raise ValueError(
                f"{op}: expected {name} on the device of {first_name}, {device}, got {value.device}"
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


def same_rows(op: str, student: Tensor, teacher: Tensor, what: str) -> None:
    """Student [..., N, D] and teacher [..., N, D'], of any widths; `what`: how they agree."""
    for name, value in (("student", student), ("teacher", teacher)):
        tensor(op, name, value)
        rank(op, name, value, "[..., N, D]", 2, -1)
    if student.device != teacher.device:
        same_device(op, student=student, teacher=teacher)
    if student.shape[:-1] != teacher.shape[:-1]:
        raise ValueError(
            f"{op}: expected student [..., N, D] and teacher [..., N, D'] with the same {what}, "
            f"got {list(student.shape)} and {list(teacher.shape)}"
        )


def option(op: str, name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        options = ", ".join(map(repr, allowed))
        raise ValueError(f"{op}: expected {name} to be one of {options}, got {value!r}")


def positive(op: str, name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{op}: expected {name} > 0, got {value}")
