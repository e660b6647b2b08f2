"""Triton kernels of pairwise_angle, its GPU backend; imported when first used.

With D the squared distances and r = 1/d, or 0 where d is,

    cos_ijk = (D_ij + D_ik - D_jk) r_ij r_ik / 2.

A program owns a tile of pairs (j, k), keeps D_jk and walks anchors i. The result is written once;
the cotangent is read once, and what it adds to W = dL/dD (gradient.angle_weights) goes to partial
matrices that are added up in a fixed order: at most 2 N^3 / TILE entries, and PROGRAMS tiles.

Of pairs much closer than others this form loses the digits of the ratio of their lengths, so D,
which is N^2, has two parts, a double number and the digits that it lacks (long_square.h in
csrc/relation says why), and all that is made of it is double whatever the rows are; result and
cotangent, which are N^3 and what a GPU waits for, have the type of the rows.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kdops._triton import PROGRAMS, cdiv, tile_of
from kdops.ops.relation.triton import SQUARED, Rows, pull

TILE = 32
OPTIONS = {"TILE": TILE, "num_warps": 4}


@triton.jit
def square_error(x, square):
    """What the rounded square of x lacks (tl.fma is not fused everywhere)."""
    upper = x * 134217729.0  # 2^27 + 1: its upper half
    upper = upper - (upper - x)
    lower = x - upper
    return ((upper * upper - square) + 2.0 * upper * lower) + lower * lower


@triton.jit
def long_squares_kernel(x, squares, rests, n, width, TILE: tl.constexpr):
    """|x_i - x_j|^2 (n, n) of double rows in two parts. To be compiled without fused operations."""
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)
    cols = tl.program_id(1) * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE, TILE), x.dtype.element_ty)
    rest = tl.zeros((TILE, TILE), x.dtype.element_ty)
    for c in range(0, width):
        a = tl.load(x + rows * width + c, rows < n, 0.0)[:, None]
        b = tl.load(x + cols * width + c, cols < n, 0.0)[None, :]
        difference = a - b
        back = a - difference
        missed = (a - (difference + back)) + (back - b)
        square = difference * difference
        low = square_error(difference, square) + 2.0 * difference * missed
        new = total + square
        added = new - total
        rest += ((total - (new - added)) + (square - added)) + low
        total = new
    place = rows.to(tl.int64)[:, None] * n + cols[None, :]
    inside = (rows[:, None] < n) & (cols[None, :] < n)
    tl.store(squares + place, total, inside)
    tl.store(rests + place, rest, inside)


@triton.jit
def from_anchor(squares, rests, rows, n):
    """D_ij in both parts and r_ij for a block of rows j; the pointers are to row i."""
    square = tl.load(squares + rows, rows < n, 0.0)
    inverse = 1.0 / tl.sqrt(tl.where(square == 0.0, 1.0, square))
    return square, tl.load(rests + rows, rows < n, 0.0), tl.where(square == 0.0, 0.0, inverse)


@triton.jit
def cosines_of(square_j, rest_j, r_j, square_k, rest_k, r_k, opposite, opposite_rest):
    """The cosines of a tile for one anchor; of the long sides first the difference."""
    j, k, rest_j, rest_k = square_j[:, None], square_k[None, :], rest_j[:, None], rest_k[None, :]
    shorter = tl.where(j <= k, j, k)
    longer = tl.where(j <= k, k, j) - opposite
    rest = tl.where(j <= k, rest_k, rest_j) - opposite_rest
    return 0.5 * (shorter + (longer + rest)) * r_j[:, None] * r_k[None, :]


@triton.jit
def angle_kernel(squares, rests, out, n, parts, TILE: tl.constexpr):
    """out (n, n, n) for the anchors part, part + parts, ... and a tile of pairs."""
    tiles = tl.cdiv(n, TILE)
    j = (tl.program_id(0) // tiles) * TILE + tl.arange(0, TILE)
    k = (tl.program_id(0) % tiles) * TILE + tl.arange(0, TILE)
    inside = (j[:, None] < n) & (k[None, :] < n)
    opposite = tile_of(squares, j, k, n, 1, n, n)
    opposite_rest = tile_of(rests, j, k, n, 1, n, n)
    i = tl.program_id(1).to(tl.int64)
    for _ in range(tl.program_id(1), n, parts):
        square_j, rest_j, r_j = from_anchor(squares + i * n, rests + i * n, j, n)
        square_k, rest_k, r_k = from_anchor(squares + i * n, rests + i * n, k, n)
        cosines = cosines_of(square_j, rest_j, r_j, square_k, rest_k, r_k, opposite, opposite_rest)
        tl.store(out + i * n * n + j[:, None] * n + k[None, :], cosines, inside)
        i += parts


@triton.jit
def weights_kernel(
    grad, stride_i, stride_j, stride_k, squares, rests, weights, n, parts, TILE: tl.constexpr
):
    """weights (2 tiles + parts, n, n), whose sum is W with each cotangent in one of its places: it
    adds to W_ij (one matrix per tile of k), to W_ik (one per tile of j), to W_jk (one per part)."""
    tiles = tl.cdiv(n, TILE)
    row, col = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    j, k = row * TILE + tl.arange(0, TILE), col * TILE + tl.arange(0, TILE)
    to_j = weights + col.to(tl.int64) * n * n
    to_k = weights + (tiles + row).to(tl.int64) * n * n
    wide_j, wide_k = j.to(tl.int64), k.to(tl.int64)
    opposite = tile_of(squares, j, k, n, 1, n, n)
    opposite_rest = tile_of(rests, j, k, n, 1, n, n)
    total = tl.zeros((TILE, TILE), squares.dtype.element_ty)
    i = tl.program_id(1).to(tl.int64)
    for _ in range(tl.program_id(1), n, parts):
        square_j, rest_j, r_j = from_anchor(squares + i * n, rests + i * n, j, n)
        square_k, rest_k, r_k = from_anchor(squares + i * n, rests + i * n, k, n)
        cosines = cosines_of(square_j, rest_j, r_j, square_k, rest_k, r_k, opposite, opposite_rest)
        g = tile_of(grad + i * stride_i, wide_j, wide_k, stride_j, stride_k, n, n)
        g = 0.5 * g.to(squares.dtype.element_ty)
        along_j = tl.sum(g * (r_k[None, :] - cosines * r_j[:, None]), 1)
        along_k = tl.sum(g * (r_j[:, None] - cosines * r_k[None, :]), 0)
        tl.store(to_j + i * n + j, along_j * r_j, j < n)
        tl.store(to_k + i * n + k, along_k * r_k, k < n)
        total -= g * r_j[:, None] * r_k[None, :]
        i += parts
    total = tl.where(j[:, None] == k[None, :], 0.0, total)  # D_jj is no variable
    last = weights + (2 * tiles + tl.program_id(1)).to(tl.int64) * n * n
    tl.store(last + j[:, None] * n + k[None, :], total, (j[:, None] < n) & (k[None, :] < n))


# ---- launchers: the same signatures as the ops in csrc/relation/relation.cpp ---------------------


def pairwise_angle(x: Tensor) -> Tensor:
    """x (N, D) -> (N, N, N)."""
    n = x.shape[0]
    out = x.new_empty((n, n, n))
    if n:
        squares, rests = _long_squares(_scaled(x))
        tiles, parts = _grid(n)
        angle_kernel[(tiles * tiles, parts)](squares, rests, out, n, parts, **OPTIONS)
    return out


def pairwise_angle_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Cotangent of x (N, D) for grad (N, N, N)."""
    n = x.shape[0]
    if x.numel() == 0:
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    rows = _scaled(x)
    squares, rests = _long_squares(rows)
    tiles, parts = _grid(n)
    weights = squares.new_empty((2 * tiles + parts, n, n))
    weights_kernel[(tiles * tiles, parts)](
        grad, *grad.stride(), squares, rests, weights, n, parts, **OPTIONS
    )
    total = weights.sum(0, keepdim=True)
    pulled = pull(SQUARED, total, squares, (n, 1), rows, squares.new_ones(1))[0]
    return (rows.scale[0] * pulled).to(x.dtype)


def _scaled(x: Tensor) -> Rows:
    """The rows (1, N, D) in double, scaled and centred."""
    return Rows.of(x[None].double(), None)


def _long_squares(rows: Rows) -> tuple[Tensor, Tensor]:
    """The squared distances (N, N) of the given rows in two parts."""
    _, n, width = rows.x_given.shape
    squares, rests = rows.x.new_empty((2, n, n)).unbind()
    grid = (cdiv(n, TILE), cdiv(n, TILE))
    long_squares_kernel[grid](
        rows.x_given, squares, rests, n, width, enable_fp_fusion=False, **OPTIONS
    )
    return squares, rests


def _grid(n: int) -> tuple[int, int]:
    """Tiles of a side, and parts of the anchors: as many as make PROGRAMS programs of all."""
    tiles = cdiv(n, TILE)
    return tiles, max(1, min(n, PROGRAMS // (tiles * tiles)))
