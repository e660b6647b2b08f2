"""What the Triton modules of the ops share. Imported by them alone, so that Triton stays optional.

`triton_launcher` in kdops/_backends.py imports such a module at the first call of one of its ops.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

# csrc/common/shared/close_pair.h says what they mean.
CLOSE_PART = tl.constexpr(1 / 32)
LOSSY_FACTOR = tl.constexpr(8.0)

PROGRAMS = 512  # enough to fill a large GPU a few times

# Columns of a gradient that a program of a streamed loss adds up. For each chunk of them all
# similarities are made again, so that it is as wide as the registers of a thread allow.
CHUNK = tl.constexpr(128)


def tiling(_: torch.dtype) -> dict[str, int]:
    """TILE: rows and columns of a tile; DEPTH: step of a product along the width of the rows.
    Four numbers of a tile a thread: with more, the tiles that the gradients hold at once do not fit
    its registers (64 x 64 by four warps spilled up to 4 KB a thread). What a kernel keeps in shared
    memory stays below 64 KB, what every GPU since sm_75 has."""
    return {"TILE": 32, "DEPTH": 32, "num_warps": 8, "num_stages": 2}


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def streamed_grid(
    batch: int, n: int, m: int, width: int, tile: int, gradients: bool
) -> tuple[int, int, int]:
    """The programs of a streamed loss: blocks of n rows of all batch entries; chunks of the
    gradient; parts into which the tiles of m columns are dealt out where these do not fill a GPU.
    The parts, and so the order of all sums, are the same with and without a gradient."""
    blocks, chunks = batch * cdiv(n, tile), max(cdiv(width, CHUNK.value), 1)
    parts = min(cdiv(m, tile), PROGRAMS // max(blocks * chunks, 1))
    return blocks, chunks if gradients else 1, max(parts, 1)


@triton.jit
def tile_of(base, rows, cols, row_stride, col_stride, n, m):
    """The tile base[rows, cols], zero outside n x m."""
    inside = (rows[:, None] < n) & (cols[None, :] < m)
    return tl.load(base + rows[:, None] * row_stride + cols[None, :] * col_stride, inside, 0.0)


@triton.jit
def inner_products(x, rows, y, cols, n, m, width, DEPTH: tl.constexpr):
    """<x_i, y_j> for a tile of pairs, zero outside n x m."""
    products = tl.zeros((rows.shape[0], cols.shape[0]), x.dtype.element_ty)
    for k0 in range(0, width, DEPTH):
        k = k0 + tl.arange(0, DEPTH)
        left = tile_of(x, rows, k, width, 1, n, width)
        right = tile_of(y, k, cols, 1, width, width, m)
        products = tl.dot(left, right, products, input_precision="ieee", out_dtype=products.dtype)
    return products


@triton.jit
def symmetric(tile):
    """The upper half of a tile for both: a product may round the two halves differently, and a tile
    on the diagonal is stored as both."""
    place = tl.arange(0, tile.shape[0])
    return tl.where(place[:, None] <= place[None, :], tile, tl.trans(tile))


@triton.jit
def is_lossy(weights, x_sizes, y_sizes, lengths, itself):
    """Whether sum_j w_ij (x_i - y_j) of a tile, as the product x sum_j w_ij - W y, cancels in some
    row; lengths may be too short, never too long."""
    magnitude = tl.where(itself, 0.0, tl.abs(weights))
    added = tl.sum(magnitude * (x_sizes[:, None] + y_sizes[None, :]), 1)
    least = tl.sum(magnitude * lengths, 1) * LOSSY_FACTOR
    return tl.max((added > least).to(tl.int32)) > 0


@triton.jit
def sum_of_differences(weights, mine, y, cols, chunk, m, width, TILE: tl.constexpr):
    """sum_j w_ij (x_i - y_j) of a tile, from the differences. A pair without weight adds nothing,
    however far it is."""
    total = tl.zeros((TILE, TILE), weights.dtype)
    place = tl.arange(0, TILE)
    first = tl.min(cols, 0)
    y += first * width
    for j in range(0, TILE):
        weight = tl.sum(tl.where(place[None, :] == j, weights, 0.0), 1)[:, None]
        other = tl.load(y + chunk, (first + j < m) & (chunk < width), 0.0)
        total += tl.where(weight == 0.0, 0.0, weight * (mine - other[None, :]))
        y += width
    return total
