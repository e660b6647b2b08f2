"""Backends of the RBF ops, and what torch must know of them beyond their kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops import _backends, _library
from kdops._autograd import loop_vmap, loss_op, wants_grad
from kdops.ops.rbf import gradient, reference

_FLOATS = (torch.float32, torch.float64)


def _native(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    return _backends.native_obstacle(device, dtype, _FLOATS)


_backends.register("rbf_affinity", typical_sizes=(1, 512, 512, 128))
_backends.register("rbf_affinity_loss", typical_sizes=(512, 128, 128))
_backends.register("svd_rbf_loss", native=_native, typical_sizes=(128, 64, 256, 4))


def rbf_affinity(x: Tensor, y: Tensor | None, gamma: Tensor | None, value: float) -> Tensor:
    """x (B, N, D), y (B, M, D), gamma (B,) or None for the number `value` -> (B, N, M)."""
    bandwidth = value if gamma is None else gamma[:, None, None]
    with torch.autocast(x.device.type, enabled=False):
        return reference.rbf_affinity(x, y, bandwidth)


def rbf_affinity_loss(
    student: Tensor, teacher: Tensor, gamma: Tensor | None, value: float
) -> Tensor:
    """student (N, D_S), teacher (N, D_T), gamma () or None for `value` -> ()."""
    with torch.autocast(student.device.type, enabled=False):
        return reference.rbf_affinity_loss(student, teacher, value if gamma is None else gamma)


def svd_rbf_loss(
    student_front: Tensor,
    student_back: Tensor,
    teacher_front: Tensor,
    teacher_back: Tensor,
    beta: float,
    scale: float,
) -> Tensor:
    """(B, D_front, k), (B, D_back, k) of student and teacher -> ()."""
    inputs = (student_front, student_back, teacher_front, teacher_back)
    batch, front, k = student_front.shape
    sizes = (batch, front, student_back.shape[1], k)
    if (
        _backends.choose("svd_rbf_loss", student_front.device.type, student_front.dtype, *sizes)
        == "native"
    ):
        return _svd_rbf_op(*inputs, beta, scale, wants_grad(student_front, student_back))[0]
    return reference.svd_rbf_loss(*inputs, beta, scale)


if not _library.missing:

    @torch.library.register_fake("kdops::svd_rbf_loss")
    def _(
        student_front: Tensor,
        student_back: Tensor,
        teacher_front: Tensor,
        teacher_back: Tensor,
        beta: float,
        scale: float,
        gradients: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        grads = (student_front, student_back)
        gf, gb = (t.new_empty(t.shape if gradients else 0) for t in grads)
        return student_front.new_empty(()), gf, gb

    def _svd_rbf_formula(*inputs: Any) -> tuple[Tensor, Tensor]:
        return gradient.svd_rbf_loss_and_gradient(*inputs[:6])[1:]

    def _svd_rbf_vmap(*arguments: Any) -> Any:
        return loop_vmap(_svd_rbf_op)(*arguments)

    _svd_rbf_op = loss_op("svd_rbf_loss", formula=_svd_rbf_formula, vmap=_svd_rbf_vmap)
