"""Triton kernels of rbf_affinity, its GPU backend; imported when first used.

Kernels over tiles. `affinity_kernel` makes K (half of it for y = x, mirrored), `pull_kernel` its
gradient -2 gamma (rowsum(P) x - P y) for P = grad * K, and `slope_kernel` that of gamma. Rows come
centred, with their squared norms, and as they were given, for tiles in which a product cancels.
Sums over parts of the work are taken afterwards, in a fixed order. Products are IEEE (no TF32).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kdops._distances import centre
from kdops._triton import (
    CLOSE_PART,
    cdiv,
    is_lossy,
    sum_of_differences,
    symmetric,
    tile_of,
    tiling,
)

# ---- device functions ----------------------------------------------------------------------------


@triton.jit
def squared_distances(
    x, x_given, x_norms, y, y_given, y_norms, rows, cols, n, m, width,
    SAME: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """|x_i - y_j|^2 for a tile of pairs. Where a pair is much closer than its norms, or overflows,
    the product has no digits left: such a tile is made again from the differences of the rows as
    they were given."""
    left_norms = tl.load(x_norms + rows, rows < n, 0.0)[:, None]
    norms = left_norms + tl.load(y_norms + cols, cols < m, 0.0)[None, :]
    products = norms * 0.0
    products = tl.where(products == 0.0, products, 0.0)
    for k0 in range(0, width, DEPTH):
        k = k0 + tl.arange(0, DEPTH)
        left = tile_of(x, rows, k, width, 1, n, width)
        right = tile_of(y, k, cols, 1, width, width, m)
        products = tl.dot(left, right, products, input_precision="ieee", out_dtype=products.dtype)
    squared = norms - 2.0 * products
    itself = (rows[:, None] == cols[None, :]) & SAME
    lost = ((squared > norms * CLOSE_PART) == 0) & (rows[:, None] < n) & (cols[None, :] < m)
    if tl.max((lost & (itself == 0)).to(tl.int32)) > 0:
        direct = tl.where(products == products, 0.0, 0.0).to(products.dtype)
        for k in range(0, width):
            difference = (
                tl.load(x_given + rows * width + k, rows < n, 0.0)[:, None]
                - tl.load(y_given + cols * width + k, cols < m, 0.0)[None, :]
            )
            direct += difference * difference
        squared = tl.where(lost, direct, squared)
    return tl.where(itself & (left_norms == left_norms), 0.0, squared)


# ---- kernels -------------------------------------------------------------------------------------


@triton.jit
def affinity_kernel(
    x, x_given, x_norms, y, y_given, y_norms, gamma, out, n, m, width,
    SAME: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """out (B, n, m) = exp(-gamma |x_i - y_j|^2). SAME: y is x, tiles below the diagonal are written
    by their mirror images."""
    i, j, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    if (j >= i) | (not SAME):
        rows, cols = i * TILE + tl.arange(0, TILE), j * TILE + tl.arange(0, TILE)
        squared = squared_distances(
            x + b * n * width, x_given + b * n * width, x_norms + b * n,
            y + b * m * width, y_given + b * m * width, y_norms + b * m,
            rows, cols, n, m, width, SAME, DEPTH,
        )  # fmt: skip
        k = tl.exp(-tl.load(gamma + b) * squared)
        if SAME & (i == j):
            k = symmetric(k)
        inside = (rows[:, None] < n) & (cols[None, :] < m)
        place = out + b * n * m
        wide_rows, wide_cols = rows.to(tl.int64), cols.to(tl.int64)
        tl.store(place + wide_rows[:, None] * m + cols[None, :], k, inside)
        if SAME:
            mirrored = (cols[:, None] < m) & (rows[None, :] < n)
            tl.store(place + wide_cols[:, None] * n + rows[None, :], tl.trans(k), mirrored)


@triton.jit
def slope_kernel(
    grad, k, x, x_given, x_norms, y, y_given, y_norms, sums, n, m, width,
    SAME: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """sums (B, tiles of rows, tiles of columns): grad * K * |x_i - y_j|^2 of each tile."""
    i, j, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows, cols = i * TILE + tl.arange(0, TILE), j * TILE + tl.arange(0, TILE)
    squared = squared_distances(
        x + b * n * width, x_given + b * n * width, x_norms + b * n,
        y + b * m * width, y_given + b * m * width, y_norms + b * m,
        rows, cols, n, m, width, SAME, DEPTH,
    )  # fmt: skip
    wide = rows.to(tl.int64)
    affinity = tile_of(k + b * n * m, wide, cols, m, 1, n, m)
    cotangent = tile_of(grad + b * n * m, wide, cols, m, 1, n, m)
    slopes = cotangent * affinity * tl.where(affinity == 0.0, 0.0, squared)  # these may be at Inf
    place = (b * tl.num_programs(0) + i) * tl.num_programs(1) + j
    tl.store(sums + place, tl.sum(slopes))


@triton.jit
def pull_kernel(
    grad, k, row_stride, col_stride, x, x_given, x_sizes, y, y_given, y_sizes, gamma, out,
    n, m, width, SAME: tl.constexpr, EPS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """out_i = -2 gamma sum_j P_ij (x_i - y_j), P = grad * K read with free strides (its transpose
    gives the gradient of y), or (grad + grad') * K where SAME."""
    i, c, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows, chunk = i * TILE + tl.arange(0, TILE), c * TILE + tl.arange(0, TILE)
    grad += b * n * m
    k += b * n * m
    wide = rows.to(tl.int64)
    mine = tile_of(x + b * n * width, wide, chunk, width, 1, n, width)
    given = tile_of(x_given + b * n * width, wide, chunk, width, 1, n, width)
    sizes = tl.load(x_sizes + b * n + rows, rows < n, 0.0)
    bandwidth = tl.load(gamma + b)
    total = tl.zeros((TILE, TILE), mine.dtype)
    for j0 in range(0, m, TILE):
        cols = (j0 + tl.arange(0, TILE)).to(tl.int64)
        weights = tile_of(grad, wide, cols, row_stride, col_stride, n, m)
        if SAME:
            weights += tile_of(grad, wide, cols, col_stride, row_stride, n, m)
        affinity = tile_of(k, wide, cols, row_stride, col_stride, n, m)
        weights *= affinity
        # 1 - exp(-t) <= t, and K near one is known to half a unit only
        lengths = tl.sqrt(tl.maximum(1.0 - EPS - affinity, 0.0) / bandwidth)
        other_sizes = tl.load(y_sizes + b * m + cols, cols < m, 0.0)
        itself = (wide[:, None] == cols[None, :]) & SAME
        if is_lossy(weights, sizes, other_sizes, lengths, itself):
            total += sum_of_differences(
                weights, given, y_given + b * m * width, cols, chunk, m, width, TILE
            )
        else:
            others = tile_of(y + b * m * width, cols, chunk, width, 1, m, width)
            total += tl.sum(weights, 1)[:, None] * mine
            total -= tl.dot(weights, others, input_precision="ieee", out_dtype=total.dtype)
    inside = (rows[:, None] < n) & (chunk[None, :] < width)
    place = out + b * n * width + wide[:, None] * width + chunk[None, :]
    tl.store(place, -2.0 * bandwidth * total, inside)


# ---- launchers: the same signatures as the ops in csrc/rbf/rbf.cpp -------------------------------


def rbf_affinity(x: Tensor, y: Tensor | None, gamma: Tensor | None, value: float) -> Tensor:
    """x (B, N, D), y (B, M, D) or None -> (B, N, M)."""
    given = x.contiguous(), (x if y is None else y).contiguous()
    rows, others = _centred_sets(x, y)
    batch, n, width = x.shape
    m = others.shape[1]
    out = x.new_empty((batch, n, m))
    if out.numel():
        options = tiling(x.dtype)
        grid = (cdiv(n, options["TILE"]), cdiv(m, options["TILE"]), batch)
        norms = [r.square().sum(-1) for r in (rows, others)]
        bandwidth = bandwidth_of(x, gamma, value)
        affinity_kernel[grid](
            rows, given[0], norms[0], others, given[1], norms[1], bandwidth, out,
            n, m, width, SAME=y is None, **options,
        )  # fmt: skip
    return out


def rbf_affinity_backward(
    grad: Tensor, x: Tensor, y: Tensor | None, gamma: Tensor | None, value: float, k: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cotangents of x, y and gamma; empty for those that are None."""
    given = x.contiguous(), (x if y is None else y).contiguous()
    rows, others = _centred_sets(x, y)
    bandwidth = bandwidth_of(x, gamma, value)
    grad, k = grad.contiguous(), k.contiguous()
    m = others.shape[1]
    one, other = (rows, given[0]), (others, given[1])
    gx = _pull(grad, k, (m, 1), one, other, bandwidth, y is None)
    gy = x.new_empty(0) if y is None else _pull(grad, k, (1, m), other, one, bandwidth, False)
    return gx, gy, x.new_empty(0) if gamma is None else _slope(grad, k, one, other, y is None)


def _slope(
    grad: Tensor, k: Tensor, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], same: bool
) -> Tensor:
    """-sum of grad K |x_i - y_j|^2 per batch entry, of (centred, given) rows."""
    batch, n, width = x[0].shape
    m = y[0].shape[1]
    options = tiling(k.dtype)
    tiles = cdiv(n, options["TILE"]), cdiv(m, options["TILE"])
    grid = (*tiles, batch)
    sums = k.new_zeros((batch, *tiles))
    if sums.numel():
        norms = [rows[0].square().sum(-1) for rows in (x, y)]
        slope_kernel[grid](
            grad, k, *x, norms[0], *y, norms[1], sums, n, m, width, SAME=same, **options
        )
    return -sums.double().sum((1, 2)).to(k.dtype)


def _pull(
    grad: Tensor,
    k: Tensor,
    strides: tuple[int, int],
    x: tuple[Tensor, Tensor],
    y: tuple[Tensor, Tensor],
    bandwidth: Tensor,
    same: bool,
) -> Tensor:
    """-2 gamma sum_j P_ij (x_i - y_j) for all rows of x; x and y are (centred, given) rows."""
    batch, n, width = x[0].shape
    m = y[0].shape[1]
    out = k.new_zeros((batch, n, width))
    if out.numel() and m:
        options = tiling(k.dtype)
        del options["DEPTH"]
        grid = (cdiv(n, options["TILE"]), cdiv(width, options["TILE"]), batch)
        sizes = [sizes_of(rows[0].square().sum(-1)) for rows in (x, y)]
        pull_kernel[grid](
            grad, k, *strides, *x, sizes[0], *y, sizes[1], bandwidth, out, n, m, width,
            SAME=same, EPS=torch.finfo(k.dtype).eps, **options,
        )  # fmt: skip
    return out


def sizes_of(norms: Tensor) -> Tensor:
    """Roots of squared norms, finite where these overflow, so that no weight makes NaN of them."""
    return norms.sqrt().clamp(max=torch.finfo(norms.dtype).max / 4)


def _centred_sets(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Contiguous rows of both sets minus their common mean; the same tensor twice for y = None."""
    if y is None:
        (rows,) = centre(x.contiguous())
        return rows, rows
    (both,) = centre(torch.cat([x, y], dim=1))
    n = x.shape[1]
    return both[:, :n].contiguous(), both[:, n:].contiguous()


def bandwidth_of(x: Tensor, gamma: Tensor | None, value: float) -> Tensor:
    """(B,) on the device."""
    return x.new_full((x.shape[0],), value) if gamma is None else gamma.contiguous()
