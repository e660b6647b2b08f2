"""The alignment of singular vectors: its shapes, gradient and backends."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdops._autograd import custom_op, gradient_op
from kdops._op import Kernel, Op
from kdops.ops.align import reference


def align(student: Tensor, teacher: Tensor, *sizes: int) -> Tensor:
    """sizes: D, K', k."""
    aligned: Tensor
    if _ALIGN.serves(student, *sizes):
        aligned = _ALIGN.run(student, teacher)[0]
    else:
        aligned = _ALIGN.plain(student, teacher)
    return aligned


def _fake_align(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    batch, _, k = teacher.shape
    return student.new_empty(teacher.shape), student.new_empty((batch, k), dtype=torch.int64)


def _fake_align_backward(grad: Tensor, choice: Tensor, candidates: int) -> Tensor:
    batch, length, _ = grad.shape
    return grad.new_empty((batch, candidates, length)).mT


def _align_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.candidates = inputs[0].shape[2]


def _align_backward(ctx: Any, grad: Tensor, _: Any) -> Any:
    (choice,) = ctx.saved_tensors
    return _ALIGN_BACKWARD.run(grad, choice, ctx.candidates), None


_ALIGN = Op(
    "align_vectors",
    shown_as="align_singular_vectors",
    fake=_fake_align,
    derivative=partial(custom_op, setup=_align_setup, backward=_align_backward),
    reference=reference.align_singular_vectors,
    typical_sizes=(64, 4, 1),
)
_ALIGN_BACKWARD = Kernel(
    "align_vectors_backward",
    fake=_fake_align_backward,
    derivative=partial(gradient_op, formula=reference.align_backward),
)
