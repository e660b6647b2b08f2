"""Tells torch and the backend table what they must know of the relation ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdops import _backends, _library
from kdops._autograd import loss_op, map_op
from kdops._vmap import loop_vmap
from kdops.ops.relation import gradient, reference

_REAL = (torch.float64, torch.float32)
_LOSSES = ("rkd_distance", "rkd_angle", "similarity")
_PAIRS = ("pairwise_distance", "pairwise_cosine")

references: dict[str, Callable[..., Tensor]] = {
    "rkd_distance": reference.rkd_distance_loss,
    "rkd_angle": reference.rkd_angle_loss,
    "similarity": reference.similarity_loss,
    "pairwise_distance": reference.pairwise_distance,
    "pairwise_cosine": reference.pairwise_cosine,
    "pairwise_angle": reference.pairwise_angle,
}
ops: dict[str, Callable[..., Any]] = {}


def _native_on_cpu(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    if device != "cpu":
        return "the C++ kernel runs on cpu; the GPU kernel is Triton's"
    return _backends.native_obstacle(device, dtype, _REAL)


def _triton(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    return _backends.triton_obstacle(device, dtype, _REAL)


def _native_rkd(device: str, dtype: torch.dtype, n: int, *sizes: int) -> str | None:
    if device == "cuda" and n >= 1 << 15:
        return f"the CUDA kernels take fewer than 32768 rows, got {n}"
    return _backends.native_obstacle(device, dtype, _REAL)


_backends.register("rkd_distance", native=_native_rkd, typical_sizes=(128, 512, 512))
_backends.register("rkd_angle", native=_native_rkd, typical_sizes=(128, 512, 512))
_backends.register(
    "similarity", native=_native_on_cpu, triton=_triton, typical_sizes=(128, 512, 512)
)
for _name in _PAIRS:
    _backends.register(
        _name, native=_native_on_cpu, triton=_triton, typical_sizes=(1, 128, 128, 512)
    )
_backends.register("pairwise_angle", native=_native_on_cpu, triton=_triton, typical_sizes=(64, 512))


def _in_turn(name: str) -> Callable[..., Any]:
    """vmap rule of an op on one set of rows: one call per mapped index."""

    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        outputs, dims = loop_vmap(ops[name])(info, in_dims, *inputs)
        return (outputs, dims) if len(outputs) > 1 else (outputs[0], dims[0])

    return vmap


def _fake_loss(student: Tensor, teacher: Tensor, want_grad: bool) -> tuple[Tensor, Tensor]:
    return student.new_empty(()), student.new_empty(student.shape if want_grad else 0)


def _fake_pairs(x: Tensor, y: Tensor | None, squared: bool = False) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], (x if y is None else y).shape[1]))


def _fake_pairs_backward(
    grad: Tensor, x: Tensor, y: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0 if y is None else y.shape)


def _define() -> None:
    fake = torch.library.register_fake
    for file, names in (
        ("triton", (*_PAIRS, *(f"{pair}_backward" for pair in _PAIRS))),
        ("triton_similarity", ("similarity",)),
        ("triton_angle", ("pairwise_angle", "pairwise_angle_backward")),
    ):
        for name in names:
            launcher = _backends.triton_launcher(f"kdops.ops.relation.{file}", name)
            torch.library.impl(f"kdops::{name}", "CUDA", launcher)
    for name in _LOSSES:
        fake(f"kdops::{name}", _fake_loss)
    for name in _PAIRS:
        fake(f"kdops::{name}", _fake_pairs)
        fake(f"kdops::{name}_backward", _fake_pairs_backward)
    fake("kdops::pairwise_angle", lambda x: x.new_empty((x.shape[0],) * 3))
    fake("kdops::pairwise_angle_backward", lambda grad, x: x.new_empty(x.shape))
    formulas = {
        "rkd_distance": lambda s, t, want_grad: gradient.rkd_distance_gradient(s, t),
        "rkd_angle": lambda s, t, want_grad: gradient.rkd_angle_gradient(s, t),
        "similarity": lambda s, t, want_grad: gradient.similarity_gradient(s, t),
    }
    for name, formula in formulas.items():
        ops[name] = loss_op(name, formula=formula, vmap=_in_turn(name))
    ops["pairwise_distance"] = map_op(
        "pairwise_distance", formula=gradient.pairwise_distance_gradient, saves_outputs=True
    )
    ops["pairwise_cosine"] = map_op("pairwise_cosine", formula=gradient.pairwise_cosine_gradient)
    ops["pairwise_angle_backward"] = torch.ops.kdops.pairwise_angle_backward.default
    ops["pairwise_angle"] = map_op(
        "pairwise_angle",
        formula=gradient.pairwise_angle_gradient,
        vmap=_in_turn("pairwise_angle"),
        backward_vmap=_in_turn("pairwise_angle_backward"),
    )


if not _library.missing:
    _define()
