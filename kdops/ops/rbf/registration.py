"""Backends of the RBF ops, and what torch must know of them beyond their kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops import _backends, _library
from kdops._autograd import loss_op, map_op, wants_grad
from kdops._precision import full_precision
from kdops._vmap import loop_vmap
from kdops.ops.rbf import gradient, reference

_FLOATS = (torch.float32, torch.float64)
_SHARED_BYTES = 60 << 10  # of a block, on every GPU; the CUDA kernel keeps 4 numbers a back value


def _native_cpu(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    if device != "cpu":
        return "the C++ kernel runs on cpu; the GPU kernel is Triton's"
    return _backends.native_obstacle(device, dtype, _FLOATS)


def _triton(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    return _backends.triton_obstacle(device, dtype, _FLOATS)


def _native_svd(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    most = _SHARED_BYTES // (4 * dtype.itemsize)
    if device == "cuda" and sizes[2] > most:
        return f"the CUDA kernel takes D_back up to {most}, not {sizes[2]}"
    return _backends.native_obstacle(device, dtype, _FLOATS)


_backends.register(
    "rbf_affinity", native=_native_cpu, triton=_triton, typical_sizes=(1, 512, 512, 128)
)
_backends.register(
    "rbf_affinity_loss", native=_native_cpu, triton=_triton, typical_sizes=(512, 128, 128)
)
_backends.register("svd_rbf_loss", native=_native_svd, typical_sizes=(128, 64, 256, 4))


def rbf_affinity(x: Tensor, y: Tensor | None, gamma: Tensor | None, value: float) -> Tensor:
    """x (B, N, D), y (B, M, D), gamma (B,) or None for the number `value` -> (B, N, M)."""
    batch, n, width = x.shape
    sizes = (batch, n, n if y is None else y.shape[1], width)
    if _backends.choose_for("rbf_affinity", x, *sizes) != "reference":
        out: Tensor = _affinity_op(x, y, gamma, value)
        return out
    bandwidth = value if gamma is None else gamma[:, None, None]
    return reference.rbf_affinity(x, y, bandwidth)


def rbf_affinity_loss(
    student: Tensor, teacher: Tensor, gamma: Tensor | None, value: float
) -> Tensor:
    """student (N, D_S), teacher (N, D_T), gamma () or None for `value` -> ()."""
    sizes = (student.shape[0], student.shape[1], teacher.shape[1])
    if _backends.choose_for("rbf_affinity_loss", student, *sizes) != "reference":
        watched = (student,) if gamma is None else (student, gamma)
        return _affinity_loss_op(student, gamma, teacher, value, wants_grad(*watched))[0]
    return reference.rbf_affinity_loss(student, teacher, value if gamma is None else gamma)


def svd_rbf_loss(
    student_front: Tensor,
    student_back: Tensor,
    teacher_front: Tensor,
    teacher_back: Tensor,
    beta: float,
    variant: int,
) -> Tensor:
    """(B, D_front, k), (B, D_back, k) of student and teacher -> ()."""
    inputs = (student_front, student_back, teacher_front, teacher_back)
    batch, front, k = student_front.shape
    sizes = (batch, front, student_back.shape[1], k)
    if _backends.choose_for("svd_rbf_loss", student_front, *sizes) == "native":
        return _svd_rbf_op(*inputs, beta, variant, wants_grad(student_front, student_back))[0]
    with full_precision(student_front):
        return reference.svd_rbf_loss(*inputs, beta, variant)


if not _library.missing:
    for _name in ("rbf_affinity", "rbf_affinity_backward", "rbf_affinity_loss"):
        _launcher = _backends.triton_launcher("kdops.ops.rbf.triton", _name)
        torch.library.impl(f"kdops::{_name}", "CUDA", _launcher)

    @torch.library.register_fake("kdops::rbf_affinity")
    def _(x: Tensor, y: Tensor | None, gamma: Tensor | None, value: float) -> Tensor:
        return x.new_empty((x.shape[0], x.shape[1], (x if y is None else y).shape[1]))

    @torch.library.register_fake("kdops::rbf_affinity_backward")
    def _(
        grad: Tensor, x: Tensor, y: Tensor | None, gamma: Tensor | None, value: float, k: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        gy, g_gamma = (x.new_empty(0 if t is None else t.shape) for t in (y, gamma))
        return x.new_empty(x.shape), gy, g_gamma

    @torch.library.register_fake("kdops::rbf_affinity_loss")
    def _(
        student: Tensor, gamma: Tensor | None, teacher: Tensor, value: float, gradients: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        g_student = student.new_empty(student.shape if gradients else 0)
        g_gamma = student.new_empty(() if gradients and gamma is not None else 0)
        return student.new_empty(()), g_student, g_gamma

    @torch.library.register_fake("kdops::svd_rbf_loss")
    def _(
        student_front: Tensor,
        student_back: Tensor,
        teacher_front: Tensor,
        teacher_back: Tensor,
        beta: float,
        variant: int,
        gradients: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        grads = (student_front, student_back)
        gf, gb = (t.new_empty(t.shape if gradients else 0) for t in grads)
        return student_front.new_empty(()), gf, gb

    def _affinity_loss_formula(
        student: Tensor, gamma: Tensor | None, teacher: Tensor, value: float, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        bandwidth = value if gamma is None else gamma
        _, g_student, g_gamma = gradient.rbf_affinity_loss_and_gradient(student, teacher, bandwidth)
        return g_student, g_gamma if gamma is not None else student.new_zeros(0)

    def _affinity_loss_vmap(*arguments: Any) -> Any:
        return loop_vmap(_affinity_loss_op)(*arguments)

    def _svd_rbf_formula(*inputs: Any) -> tuple[Tensor, Tensor]:
        return gradient.svd_rbf_loss_and_gradient(*inputs[:6])[1:]

    def _svd_rbf_vmap(*arguments: Any) -> Any:
        return loop_vmap(_svd_rbf_op)(*arguments)

    _affinity_op = map_op(
        "rbf_affinity", formula=gradient.rbf_affinity_backward, saves_outputs=True
    )
    _affinity_loss_op = loss_op(
        "rbf_affinity_loss", formula=_affinity_loss_formula, vmap=_affinity_loss_vmap
    )
    _svd_rbf_op = loss_op("svd_rbf_loss", formula=_svd_rbf_formula, vmap=_svd_rbf_vmap)
