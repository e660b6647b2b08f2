"""Triton kernel of gram_anchoring_loss, its GPU backend; imported when first used.

`anchoring_kernel` meets a block of unit tokens with all of its image: it makes a tile of both Gram
matrices, adds up the squares of their difference and what it pulls at the tokens, and forgets
the tile, so that memory is O(N D). Products are IEEE (no TF32); sums have a fixed order. Images for
which float has too few digits are done again in double; for the others that launch ends at once.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kdops._triton import CHUNK, inner_products, streamed_grid, tile_of, tiling
from kdops._unit_rows import unit_and_inverse
from kdops.ops.token_gram.reference import image_weights

# As kTooFewDigits of csrc/token_gram/image.h, which says what it is compared with.
TOO_FEW_DIGITS = 1 / 65536


@triton.jit
def anchoring_kernel(
    x, y, chosen, squares, entries, pull, n, x_width, y_width,
    NEGATIVES: tl.constexpr, GRADIENT: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Unit tokens x (B, n, x_width), y (B, n, y_width) of chosen (B) images; others give zeros.

    A block of rows against the column tiles part, part + parts, ...: sums of d^2, d = G_S - G_T,
    and of the squares of both entries (parts, B tiles), and the pull sum_j d_ij x_j where G_S moves
    (parts, B, n, x_width). NEGATIVES: KEEP, DROP, DROP_TEACHER of reference.py.
    """
    tiles = tl.cdiv(n, TILE)
    b, part = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(2).to(tl.int64)
    rows = (tl.program_id(0) % tiles * TILE + tl.arange(0, TILE)).to(tl.int64)
    chunk = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    x += b * n * x_width
    y += b * n * y_width
    total = tl.zeros((TILE, CHUNK), x.dtype.element_ty)
    square = tl.zeros((TILE, TILE), x.dtype.element_ty)
    entry = tl.zeros((TILE, TILE), x.dtype.element_ty)
    end = tl.where(tl.load(chosen + b) != 0, n, 0)
    for j0 in range(tl.program_id(2) * TILE, end, tl.num_programs(2) * TILE):
        cols = (j0 + tl.arange(0, TILE)).to(tl.int64)
        g_s = inner_products(x, rows, x, cols, n, n, x_width, DEPTH)
        g_t = inner_products(y, rows, y, cols, n, n, y_width, DEPTH)
        stays = g_s < 0.0  # where it is a dropped negative entry; NaN is none
        if NEGATIVES == 1:
            g_s = tl.where(stays, 0.0, g_s)
        if NEGATIVES != 0:
            g_t = tl.where(g_t < 0.0, 0.0, g_t)
        difference = g_s - g_t
        square += difference * difference
        entry += g_s * g_s + g_t * g_t
        if GRADIENT:
            if NEGATIVES == 1:
                difference = tl.where(stays, 0.0, difference)
            others = tile_of(x, cols, chunk, x_width, 1, n, x_width)
            total = tl.dot(difference, others, total, input_precision="ieee", out_dtype=total.dtype)
    if tl.program_id(1) == 0:
        place = part * tl.num_programs(0) + tl.program_id(0)
        tl.store(squares + place, tl.sum(square))
        tl.store(entries + place, tl.sum(entry))
    if GRADIENT:
        inside = (rows[:, None] < n) & (chunk[None, :] < x_width)
        place = (part * (tl.num_programs(0) // tiles) + b) * n * x_width
        tl.store(pull + place + rows[:, None] * x_width + chunk[None, :], total, inside)


# ---- launcher: the same signature as the op in csrc/token_gram/token_gram.cpp --------------------


def gram_anchoring_loss(
    student: Tensor, teacher: Tensor, weights: Tensor | None, negatives: int, gradients: bool
) -> tuple[Tensor, Tensor]:
    """(loss, gradient of student (B, N, D_S)); the gradient is empty when it is not wanted."""
    x, inverse = unit_and_inverse(student.double().contiguous())
    y = unit_and_inverse(teacher.double().contiguous())[0]
    options = negatives, gradients
    everywhere = torch.ones(len(x), dtype=torch.bool, device=x.device)
    single = student.dtype == torch.float32
    narrow = (x.float(), y.float()) if single else (x, y)
    sums, entries, pull = _of_images(*narrow, everywhere, *options)
    across = _across(pull, x)
    if single:
        cancels = (sums < TOO_FEW_DIGITS * entries) & (sums != 0)
        pulled, left = (r.square().sum((1, 2)) for r in (pull, across))
        lost = cancels | (left < TOO_FEW_DIGITS * pulled)
        exact, _, pull = _of_images(x, y, lost, *options)
        sums = torch.where(cancels, exact, sums)
        across = torch.where(lost[:, None, None], _across(pull, x), across)
    share = image_weights(student, None if weights is None else weights.double())
    loss = (sums * share).sum().to(student.dtype)
    if not gradients:
        return loss, student.new_empty(0)
    factor = share[:, None, None] if isinstance(share, Tensor) else share
    return loss, (across * (4 * factor) * inverse).to(student.dtype)


def _of_images(
    x: Tensor, y: Tensor, chosen: Tensor, negatives: int, gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """anchoring_kernel on unit tokens: |G_S - G_T|^2 (B,), |G_S|^2 + |G_T|^2 (B,) and the pull
    (B, N, D_S), empty when it is not wanted, in double; zeros for images that are not chosen."""
    batch, n, width = x.shape
    options = tiling(x.dtype)
    grid = streamed_grid(batch, n, n, width, options["TILE"], gradients)
    blocks, _, parts = grid
    sums = x.new_zeros((2, parts, batch, blocks // max(batch, 1)))
    pull = x.new_zeros((parts, batch, n, width) if gradients else (1, batch, 0, 0))
    if sums.numel():
        anchoring_kernel[grid](
            x, y, chosen.int(), sums[0], sums[1], pull, n, width, y.shape[2],
            NEGATIVES=negatives, GRADIENT=gradients, **options,
        )  # fmt: skip
    squares, entries = sums.double().sum((1, 3))
    return squares, entries, pull.double().sum(0)


def _across(pull: Tensor, x: Tensor) -> Tensor:
    """The part of the pull that turns a unit token."""
    if pull.shape != x.shape:
        return pull
    return pull - x * (x * pull).sum(-1, keepdim=True)
