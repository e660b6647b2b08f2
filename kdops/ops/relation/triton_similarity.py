"""Triton kernel of similarity_loss; imported when first used.

The Gram matrices come from pairs_kernel (triton.py), `similarity_kernel` turns a row of the
student's into the loss gradient, and pull_kernel takes it back to the rows.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kdops._unit_rows import power_of_two_scale
from kdops.ops.relation.triton import GRAM, Rows, pairs, pull

ROW_BLOCK = 1024  # columns of a Gram row that similarity_kernel holds at once


@triton.jit
def inverse_norm(row, n, BLOCK: tl.constexpr):
    """1 / |row|, or zero; entries are divided by the largest before they are squared."""
    tops = tl.zeros((BLOCK,), row.dtype.element_ty)
    for j0 in range(0, n, BLOCK):
        cols = j0 + tl.arange(0, BLOCK)
        tops = tl.maximum(tops, tl.abs(tl.load(row + cols, cols < n, 0.0)))
    top = tl.max(tops, 0)
    top = tl.where(top == 0.0, 1.0, top)
    sums = tl.zeros((BLOCK,), row.dtype.element_ty)
    for j0 in range(0, n, BLOCK):
        cols = j0 + tl.arange(0, BLOCK)
        value = tl.load(row + cols, cols < n, 0.0) / top
        sums += value * value
    square = tl.sum(sums, 0)
    return tl.where(square == 0.0, 0.0, 1.0 / tl.sqrt(tl.where(square == 0.0, 1.0, square)) / top)


@triton.jit
def similarity_kernel(
    student, teacher, factor, losses, n, GRADIENT: tl.constexpr, BLOCK: tl.constexpr
):
    """Row i: losses[i] = |u - t|^2 for the unit rows u, t of both Gram matrices; the student's row
    becomes factor * (e - (e . u) u) / |G_i|, e = u - t."""
    i = tl.program_id(0).to(tl.int64)
    row, other = student + i * n, teacher + i * n
    inverse, inverse_t = inverse_norm(row, n, BLOCK), inverse_norm(other, n, BLOCK)
    loss = tl.zeros((BLOCK,), student.dtype.element_ty)
    along = tl.zeros((BLOCK,), student.dtype.element_ty)
    for j0 in range(0, n, BLOCK):
        cols = j0 + tl.arange(0, BLOCK)
        unit = tl.load(row + cols, cols < n, 0.0) * inverse
        error = unit - tl.load(other + cols, cols < n, 0.0) * inverse_t
        loss += error * error
        along += error * unit
    tl.store(losses + i, tl.sum(loss, 0))
    if GRADIENT:
        projection = tl.sum(along, 0)
        scale = tl.load(factor) * inverse
        for j0 in range(0, n, BLOCK):
            cols = j0 + tl.arange(0, BLOCK)
            unit = tl.load(row + cols, cols < n, 0.0) * inverse
            error = unit - tl.load(other + cols, cols < n, 0.0) * inverse_t
            tl.store(row + cols, scale * (error - projection * unit), cols < n)


def similarity(student: Tensor, teacher: Tensor, want_grad: bool) -> tuple[Tensor, Tensor]:
    """(loss, dL/dstudent), the gradient empty unless wanted."""
    scale = power_of_two_scale(student)
    rows = Rows((student * scale).contiguous()[None], None)
    others = Rows((teacher * power_of_two_scale(teacher)).contiguous()[None], None)
    one, n = student.new_ones(1), student.shape[0]
    gram, teacher_gram = pairs(GRAM, rows, one), pairs(GRAM, others, one)
    losses = student.new_empty(n)
    factor = scale.new_full((1,), 2 / max(n * n, 1))
    if n:
        similarity_kernel[(n,)](
            gram, teacher_gram, factor, losses, n, GRADIENT=want_grad, BLOCK=ROW_BLOCK
        )
    loss = losses.double().sum().to(student.dtype) / max(n * n, 1)
    if not want_grad:
        return loss, student.new_empty(0)
    return loss, scale * pull(GRAM, gram, gram, (n, 1), rows, one)[0]
