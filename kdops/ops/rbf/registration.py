"""The RBF ops: their shapes, gradients and backends."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdops._autograd import loss_op, map_op, wants_grad
from kdops._op import Op
from kdops.ops.rbf import gradient, reference
from kdops.ops.rbf.limits import NUMBERS_PER_BACK_VALUE

_SHARED_BYTES = 60 << 10  # of a block, on every GPU


def rbf_affinity(x: Tensor, y: Tensor | None, gamma: Tensor | None, value: float) -> Tensor:
    """x (B, N, D), y (B, M, D), gamma (B,) or None for the number `value` -> (B, N, M)."""
    batch, n, width = x.shape
    sizes = (batch, n, n if y is None else y.shape[1], width)
    out: Tensor
    if _AFFINITY.serves(x, *sizes):
        out = _AFFINITY.run(x, y, gamma, value)
    else:
        out = _AFFINITY.plain(x, y, value if gamma is None else gamma[:, None, None])
    return out


def rbf_affinity_loss(
    student: Tensor, teacher: Tensor, gamma: Tensor | None, value: float
) -> Tensor:
    """student (N, D_S), teacher (N, D_T), gamma () or None for `value` -> ()."""
    sizes = (student.shape[0], student.shape[1], teacher.shape[1])
    loss: Tensor
    if _AFFINITY_LOSS.serves(student, *sizes):
        watched = (student,) if gamma is None else (student, gamma)
        loss = _AFFINITY_LOSS.run(student, gamma, teacher, value, wants_grad(*watched))[0]
    else:
        loss = _AFFINITY_LOSS.plain(student, teacher, value if gamma is None else gamma)
    return loss


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
    loss: Tensor
    if _SVD_RBF_LOSS.serves(student_front, *sizes):
        gradients = wants_grad(student_front, student_back)
        loss = _SVD_RBF_LOSS.run(*inputs, beta, variant, gradients)[0]
    else:
        loss = _SVD_RBF_LOSS.plain(*inputs, beta, variant)
    return loss


def _svd_rbf_limit(device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    most = _SHARED_BYTES // (NUMBERS_PER_BACK_VALUE * dtype.itemsize)
    if device == "cuda" and sizes[2] > most:
        return f"the CUDA kernel takes D_back up to {most}, not {sizes[2]}"
    return None


def _fake_affinity(x: Tensor, y: Tensor | None, *bandwidth: Any) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], (x if y is None else y).shape[1]))


def _fake_affinity_backward(
    grad: Tensor, x: Tensor, y: Tensor | None, gamma: Tensor | None, value: float, k: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    gy, g_gamma = (x.new_empty(0 if t is None else t.shape) for t in (y, gamma))
    return x.new_empty(x.shape), gy, g_gamma


def _fake_affinity_loss(
    student: Tensor, gamma: Tensor | None, teacher: Tensor, value: float, gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    g_student = student.new_empty(student.shape if gradients else 0)
    g_gamma = student.new_empty(() if gradients and gamma is not None else 0)
    return student.new_empty(()), g_student, g_gamma


def _fake_svd_rbf_loss(front: Tensor, back: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    gradients = others[-1]
    gf, gb = (t.new_empty(t.shape if gradients else 0) for t in (front, back))
    return front.new_empty(()), gf, gb


def _affinity_loss_formula(
    student: Tensor, gamma: Tensor | None, teacher: Tensor, value: float, gradients: bool
) -> tuple[Tensor, Tensor]:
    bandwidth = value if gamma is None else gamma
    _, g_student, g_gamma = gradient.rbf_affinity_loss_and_gradient(student, teacher, bandwidth)
    return g_student, g_gamma if gamma is not None else student.new_zeros(0)


def _svd_rbf_formula(*inputs: Any) -> tuple[Tensor, Tensor]:
    return gradient.svd_rbf_loss_and_gradient(*inputs[:6])[1:]


_AFFINITY = Op(
    "rbf_affinity",
    fake=_fake_affinity,
    backward_fake=_fake_affinity_backward,
    derivative=partial(map_op, formula=gradient.rbf_affinity_backward, saves_outputs=True),
    reference=reference.rbf_affinity,
    triton="kdops.ops.rbf.triton",
    typical_sizes=(1, 512, 512, 128),
)
_AFFINITY_LOSS = Op(
    "rbf_affinity_loss",
    fake=_fake_affinity_loss,
    derivative=partial(loss_op, formula=_affinity_loss_formula),
    reference=reference.rbf_affinity_loss,
    triton="kdops.ops.rbf.triton_loss",
    typical_sizes=(512, 128, 128),
)
_SVD_RBF_LOSS = Op(
    "svd_rbf_loss",
    fake=_fake_svd_rbf_loss,
    derivative=partial(loss_op, formula=_svd_rbf_formula),
    reference=reference.svd_rbf_loss,
    limit=_svd_rbf_limit,
    typical_sizes=(128, 64, 256, 4),
)
