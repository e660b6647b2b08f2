"""The token_gram ops: their shapes, gradients and backends."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from kdops._autograd import loss_op, wants_grad
from kdops._op import Op
from kdops.ops.token_gram import cka, gradient, reference


def gram_anchoring_loss(
    student: Tensor, teacher: Tensor, weights: Tensor | None, negatives: int
) -> Tensor:
    """student (B, N, D_S), teacher (B, N, D_T), weights (B,) or None for the mean -> ()."""
    loss: Tensor
    if _ANCHORING.serves(student, *student.shape, teacher.shape[2]):
        loss = _ANCHORING.run(student, teacher, weights, negatives, wants_grad(student))[0]
    else:
        loss = _ANCHORING.plain(student, teacher, weights, negatives)
    return loss


def cka_loss(student: Tensor, teacher: Tensor, inside: Tensor | None, centred: bool) -> Tensor:
    """student (B, N, D_S), teacher (B, N, D_T), inside (B, N) or None for all rows -> ()."""
    loss: Tensor
    if _CKA.serves(student, *student.shape, teacher.shape[2]):
        loss = _CKA.run(student, teacher, inside, centred, wants_grad(student))[0]
    else:
        loss = _CKA.plain(student, teacher, inside, centred)
    return loss


def _fake(student: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return student.new_empty(()), student.new_empty(student.shape if others[-1] else 0)


def _formula(
    student: Tensor, teacher: Tensor, weights: Tensor | None, negatives: int, gradients: bool
) -> Tensor:
    return gradient.gram_anchoring_gradient(student, teacher, weights, negatives)


def _cka_formula(
    student: Tensor, teacher: Tensor, inside: Tensor | None, centred: bool, gradients: bool
) -> Tensor:
    return cka.cka_gradient(student, teacher, inside, centred)


_ANCHORING = Op(
    "gram_anchoring_loss",
    fake=_fake,
    derivative=partial(loss_op, formula=_formula),
    reference=reference.gram_anchoring_loss,
    triton="kdops.ops.token_gram.triton",
    typical_sizes=(8, 1369, 384, 1024),
)
_CKA = Op(
    "cka_loss",
    fake=_fake,
    derivative=partial(loss_op, formula=_cka_formula),
    reference=cka.cka_loss,
    triton="kdops.ops.token_gram.triton_cka",
    typical_sizes=(1, 256, 512, 2048),
)
