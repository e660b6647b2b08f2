"""The op of the similarity KL: its shapes, gradient and backends."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from kdops._autograd import loss_op, wants_grad
from kdops._op import Op
from kdops.ops.similarity_kl import gradient, reference
from kdops.ops.similarity_kl.reference import Options


def similarity_kl_loss(
    student: Tensor,
    keys: Tensor | None,
    teacher: Tensor,
    teacher_keys: Tensor | None,
    mask: Tensor | None,
    options: Options,
) -> Tensor:
    """student (B, N, D), keys (B, M, D), teacher (B, N, D'), teacher_keys (B, M, D'), mask (B, N)
    -> ()."""
    batch, n, width = student.shape
    sizes = (batch, n, n if keys is None else keys.shape[1], width, teacher.shape[2])
    loss: Tensor
    if not _KL.serves(student, *sizes):
        loss = _KL.plain(student, keys, teacher, teacher_keys, mask, options)
        return loss
    wanted = keys is not None and wants_grad(keys)
    loss = _KL.run(
        student,
        keys,
        teacher,
        teacher_keys,
        mask,
        options.student_scale,
        options.teacher_scale,
        options.cosine,
        options.self_pairs,
        wanted or wants_grad(student),
        wanted,
    )[0]
    return loss


def pkt_loss(student: Tensor, teacher: Tensor, epsilon: float) -> Tensor:
    """student (N, D), teacher (N, D') -> ()."""
    loss: Tensor
    if _PKT.serves(student, *student.shape, teacher.shape[1]):
        loss = _PKT.run(student, teacher, epsilon, wants_grad(student))[0]
    else:
        loss = _PKT.plain(student, teacher, epsilon)
    return loss


def _fake(student: Tensor, keys: Tensor | None, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    gradients, of_keys = others[-2:]
    g_student = student.new_empty(student.shape if gradients else 0)
    g_keys = student.new_empty(keys.shape if of_keys and keys is not None else 0)
    return student.new_empty(()), g_student, g_keys


def _formula(
    student: Tensor,
    keys: Tensor | None,
    teacher: Tensor,
    teacher_keys: Tensor | None,
    mask: Tensor | None,
    *options: Any,
) -> tuple[Tensor, Tensor]:
    return gradient.similarity_kl_gradient(
        student, keys, teacher, teacher_keys, mask, Options(*options[:4])
    )


def _fake_pkt(
    student: Tensor, teacher: Tensor, epsilon: float, gradients: bool
) -> tuple[Tensor, Tensor]:
    return student.new_empty(()), student.new_empty(student.shape if gradients else 0)


def _pkt_formula(student: Tensor, teacher: Tensor, epsilon: float, gradients: bool) -> Tensor:
    return gradient.pkt_gradient(student, teacher, epsilon)


_KL = Op(
    "similarity_kl",
    fake=_fake,
    derivative=partial(loss_op, formula=_formula),
    reference=reference.similarity_kl_loss,
    triton="kdops.ops.similarity_kl.triton",
    typical_sizes=(1, 512, 512, 128, 128),
)
_PKT = Op(
    "pkt",
    fake=_fake_pkt,
    derivative=partial(loss_op, formula=_pkt_formula),
    reference=reference.pkt_loss,
    triton="kdops.ops.similarity_kl.triton_pkt",
    typical_sizes=(512, 128, 128),
)
