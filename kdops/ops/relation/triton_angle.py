"""Triton kernels of pairwise_angle, its GPU backend; imported when first used.

With D the squared distances (pairs_kernel of triton.py) and r = 1/d, or 0 where d is,

    cos_ijk = (D_ij + D_ik - D_jk) r_ij r_ik / 2.

A program owns a tile of pairs (j, k), keeps D_jk and walks anchors i. The result is written once;
the cotangent is read once, and what it adds to W = dL/dD (gradient.angle_weights) goes to partial
matrices that are added up in a fixed order: at most 2 N^3 / TILE entries, and PROGRAMS tiles.

Of pairs much closer than the rows are long this form loses the digits of their ratio, so D, which
is N^2, and all that is made of it are double whatever the rows are; result and cotangent, which are
N^3 and what a GPU waits for, have the type of the rows.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kdops._triton import PROGRAMS, cdiv, tile_of
from kdops.ops.relation.triton import SQUARED, Rows, pairs, pull

TILE = 32
OPTIONS = {"TILE": TILE, "num_warps": 4}


@triton.jit
def from_anchor(near, rows, n):
    """D_ij and r_ij for a block of rows j; near points to row i of D."""
    square = tl.load(near + rows, rows < n, 0.0)
    inverse = 1.0 / tl.sqrt(tl.where(square == 0.0, 1.0, square))
    return square, tl.where(square == 0.0, 0.0, inverse)


@triton.jit
def cosines_of(square_j, r_j, square_k, r_k, opposite):
    """The cosines of a tile for one anchor."""
    dots = (square_j[:, None] + square_k[None, :] - opposite) * 0.5
    return dots * r_j[:, None] * r_k[None, :]


@triton.jit
def angle_kernel(squares, out, n, parts, TILE: tl.constexpr):
    """out (n, n, n) for the anchors part, part + parts, ... and a tile of pairs."""
    tiles = tl.cdiv(n, TILE)
    j = (tl.program_id(0) // tiles) * TILE + tl.arange(0, TILE)
    k = (tl.program_id(0) % tiles) * TILE + tl.arange(0, TILE)
    inside = (j[:, None] < n) & (k[None, :] < n)
    opposite = tile_of(squares, j, k, n, 1, n, n)
    i = tl.program_id(1).to(tl.int64)
    for _ in range(tl.program_id(1), n, parts):
        square_j, r_j = from_anchor(squares + i * n, j, n)
        square_k, r_k = from_anchor(squares + i * n, k, n)
        cosines = cosines_of(square_j, r_j, square_k, r_k, opposite)
        tl.store(out + i * n * n + j[:, None] * n + k[None, :], cosines, inside)
        i += parts


@triton.jit
def weights_kernel(
    grad, stride_i, stride_j, stride_k, squares, weights, n, parts, TILE: tl.constexpr
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
    total = tl.zeros((TILE, TILE), squares.dtype.element_ty)
    i = tl.program_id(1).to(tl.int64)
    for _ in range(tl.program_id(1), n, parts):
        square_j, r_j = from_anchor(squares + i * n, j, n)
        square_k, r_k = from_anchor(squares + i * n, k, n)
        cosines = cosines_of(square_j, r_j, square_k, r_k, opposite)
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
        squares = _scaled_squares(x)[1]
        tiles, parts = _grid(n)
        angle_kernel[(tiles * tiles, parts)](squares, out, n, parts, **OPTIONS)
    return out


def pairwise_angle_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Cotangent of x (N, D) for grad (N, N, N)."""
    n = x.shape[0]
    if x.numel() == 0:
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    rows, squares = _scaled_squares(x)
    tiles, parts = _grid(n)
    weights = squares.new_empty((2 * tiles + parts, n, n))
    weights_kernel[(tiles * tiles, parts)](
        grad, *grad.stride(), squares, weights, n, parts, **OPTIONS
    )
    total = weights.sum(0, keepdim=True)
    pulled = pull(SQUARED, total, squares, (n, 1), rows, squares.new_ones(1))[0]
    return (rows.scale[0] * pulled).to(x.dtype)


def _scaled_squares(x: Tensor) -> tuple[Rows, Tensor]:
    """The scaled rows (1, N, D) and their squared distances, in double."""
    rows = Rows.of(x[None].double(), None)
    return rows, pairs(SQUARED, rows, rows.x.new_ones(1))


def _grid(n: int) -> tuple[int, int]:
    """Tiles of a side, and parts of the anchors: as many as make PROGRAMS programs of all."""
    tiles = cdiv(n, TILE)
    return tiles, max(1, min(n, PROGRAMS // (tiles * tiles)))
