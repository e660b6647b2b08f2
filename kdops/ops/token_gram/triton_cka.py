"""Triton kernels of cka_loss, its GPU backend; imported when first used.

By rows: `kernels_kernel` makes both K = X Xᵀ (N x N) and the squares of their tiles in one launch,
`differences_kernel` the squares of their difference, `pull_kernel` what it pulls at the rows.
Products are IEEE (no TF32); sums have a fixed order. By columns the products are torch's, in
double.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kdops._triton import CHUNK, cdiv, inner_products, tile_of, tiling
from kdops._unit_rows import safe_root
from kdops.ops.token_gram import cka


@triton.jit
def kernels_kernel(
    x, y, k_s, k_t, squares, n, x_width, y_width, TILE: tl.constexpr, DEPTH: tl.constexpr
):
    """Rows x (B, n, x_width), y (B, n, y_width) -> k_s, k_t (B, n, n), and the sums of squares of
    their tiles (2, B, tiles, tiles). A tile of the upper half writes its mirror image, too."""
    tiles = tl.cdiv(n, TILE)
    b, pair = (tl.program_id(0) // (tiles * tiles)).to(tl.int64), tl.program_id(0) % (tiles * tiles)
    i, j = pair // tiles, pair % tiles
    if i <= j:
        rows = (i * TILE + tl.arange(0, TILE)).to(tl.int64)
        cols = (j * TILE + tl.arange(0, TILE)).to(tl.int64)
        inside = (rows[:, None] < n) & (cols[None, :] < n)
        place = rows[:, None] * n + cols[None, :]
        mirror = rows[:, None] + cols[None, :] * n
        x += b * n * x_width
        own = inner_products(x, rows, x, cols, n, n, x_width, DEPTH)
        tl.store(k_s + b * n * n + mirror, own, inside)
        tl.store(k_s + b * n * n + place, own, inside)
        y += b * n * y_width
        other = inner_products(y, rows, y, cols, n, n, y_width, DEPTH)
        tl.store(k_t + b * n * n + mirror, other, inside)
        tl.store(k_t + b * n * n + place, other, inside)
        weight = tl.where(i == j, 1.0, 2.0).to(own.dtype)
        tl.store(squares + tl.program_id(0), weight * tl.sum(own * own))
        tl.store(squares + tl.num_programs(0) + tl.program_id(0), weight * tl.sum(other * other))


@triton.jit
def difference_of(k_s, k_t, own, other, rows, cols, n):
    """A = K_S / |K_S| and A - K_T / |K_T| for a tile of pairs, zero outside n x n."""
    unit = tile_of(k_s, rows, cols, n, 1, n, n) * own
    return unit, unit - tile_of(k_t, rows, cols, n, 1, n, n) * other


@triton.jit
def differences_kernel(k_s, k_t, own, other, squares, n, TILE: tl.constexpr):
    """Sums of squares (B, tiles) of a block of rows of A - B."""
    tiles = tl.cdiv(n, TILE)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    rows = (tl.program_id(0) % tiles * TILE + tl.arange(0, TILE)).to(tl.int64)
    k_s += b * n * n
    k_t += b * n * n
    own, other = tl.load(own + b), tl.load(other + b)
    square = tl.zeros((TILE, TILE), k_s.dtype.element_ty)
    for j0 in range(0, n, TILE):
        cols = (j0 + tl.arange(0, TILE)).to(tl.int64)
        difference = difference_of(k_s, k_t, own, other, rows, cols, n)[1]
        square += difference * difference
    tl.store(squares + tl.program_id(0), tl.sum(square))


@triton.jit
def pull_kernel(x, k_s, k_t, own, other, loss, pull, n, width, TILE: tl.constexpr):
    """(A - B - loss A) X (B, n, width): a block of rows, a chunk of columns."""
    tiles = tl.cdiv(n, TILE)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    rows = (tl.program_id(0) % tiles * TILE + tl.arange(0, TILE)).to(tl.int64)
    chunk = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    x += b * n * width
    k_s += b * n * n
    k_t += b * n * n
    own, other, loss = tl.load(own + b), tl.load(other + b), tl.load(loss + b)
    total = tl.zeros((TILE, CHUNK), x.dtype.element_ty)
    for j0 in range(0, n, TILE):
        cols = (j0 + tl.arange(0, TILE)).to(tl.int64)
        unit, difference = difference_of(k_s, k_t, own, other, rows, cols, n)
        others = tile_of(x, cols, chunk, width, 1, n, width)
        weights = difference - loss * unit
        total = tl.dot(weights, others, total, input_precision="ieee", out_dtype=total.dtype)
    inside = (rows[:, None] < n) & (chunk[None, :] < width)
    tl.store(pull + b * n * width + rows[:, None] * width + chunk[None, :], total, inside)


# ---- launcher: the same signature as the op in csrc/token_gram/token_gram.cpp --------------------


def cka_loss(
    student: Tensor, teacher: Tensor, inside: Tensor | None, centered: bool, gradients: bool
) -> tuple[Tensor, Tensor]:
    """(loss, gradient of student (B, N, D_S)); the gradient is empty when it is not wanted."""
    counts = None if inside is None else inside.unsqueeze(-1)
    x, scale = cka.scaled(student, counts)
    x = cka.centred(x, counts) if centered else x
    y = cka.prepared(teacher, counts, centered)
    method = _by_rows if cka.by_rows(student, teacher) else _by_columns
    losses, pull = method(x.contiguous(), y.contiguous(), gradients)
    loss = (losses.sum() / max(len(losses), 1)).to(student.dtype)
    if not gradients:
        return loss, student.new_empty(0)
    return loss, pull.to(student.dtype) * (scale / max(len(losses), 1))


def _by_rows(x: Tensor, y: Tensor, gradients: bool) -> tuple[Tensor, Tensor]:
    """1 - CKA (B,) in double and, where it is wanted, dL/dx."""
    batch, n, width = x.shape
    options = tiling(x.dtype)
    tiles = cdiv(n, options["TILE"])
    launch = {name: options[name] for name in options if name != "DEPTH"}
    kernels = x.new_empty((2, batch, n, n))
    squares = x.new_zeros((2, batch, tiles * tiles))  # tiles below the diagonal have none
    if squares.numel():
        grid = (batch * tiles * tiles,)
        kernels_kernel[grid](x, y, *kernels, squares, n, width, y.shape[2], **options)
    sizes = safe_root(squares.double().sum(2))[1]
    own, other = sizes
    units = sizes.to(x.dtype)
    squares = x.new_zeros((batch, tiles))
    if squares.numel():
        differences_kernel[(batch * tiles,)](*kernels, *units, squares, n, **launch)
    losses = cka.of_squares(squares.double().sum(1), own, other)
    pull = torch.zeros_like(x)
    if gradients and pull.numel():
        chunks, narrow = cdiv(width, CHUNK.value), losses.to(x.dtype)
        pull_kernel[(batch * tiles, chunks)](x, *kernels, *units, narrow, pull, n, width, **launch)
        pull *= _factor(2 * own, other).to(x.dtype)
    return losses, pull


def _by_columns(x: Tensor, y: Tensor, gradients: bool) -> tuple[Tensor, Tensor]:
    x, y = x.double(), y.double()
    xx, yx = x.mT @ x, y.mT @ x
    own, other = cka.inverse_norm(xx), cka.inverse_norm(y.mT @ y)
    both = yx.square().sum((1, 2))
    losses = 1 - both * own * other
    if not gradients:
        return losses, x
    pull = x @ (xx * (both * own * own)[:, None, None]) - y @ yx
    return losses, pull * _factor(2 * own * other, other)


def _factor(factor: Tensor, other: Tensor) -> Tensor:
    """(B, 1, 1); zero, too, where the teacher has no variance."""
    return torch.where(other == 0, 0.0, factor)[:, None, None]
