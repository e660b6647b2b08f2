"""Triton kernels of the pairwise matrices; imported when first used.

`pairs_kernel` makes a tile of x yT, with the distances as its epilogue; `pull_kernel` is the
gradient of both, a product with weights that are made tile by tile from the cotangent. For y = x
half of the tiles are computed and mirrored. Products are IEEE (no TF32); sums have a fixed order.
The kernels of similarity and of the angles, in triton_similarity.py and triton_angle.py, start from
these.
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
from kdops._unit_rows import power_of_two_scale, to_unit_rows, unit_rows

GRAM, DISTANCE, SQUARED = 0, 1, 2


# ---- kernels -------------------------------------------------------------------------------------


@triton.jit
def squared_differences(x, y, rows, cols, n, m, width, lift, zero):
    """|x_i - y_j|^2 of a tile from differences of the given rows, each times lift; zero: a tile of
    zeros, for the type."""
    total = zero
    for k in range(0, width):
        difference = (
            tl.load(x + rows * width + k, rows < n, 0.0)[:, None]
            - tl.load(y + cols * width + k, cols < m, 0.0)[None, :]
        ) * lift
        total += difference * difference
    return total


@triton.jit
def distances_of(
    products, x, y, x_norms, y_norms, rows, cols, n, m, width,
    KIND: tl.constexpr, SAME: tl.constexpr,
):  # fmt: skip
    """The distances of a tile, or the squared ones, from the products. A tile that holds a pair
    much closer than its norms is made again from differences of the given rows x and y: equal rows
    give exactly zero, and rows whose squared distance would vanish keep their distance."""
    left = tl.load(x_norms + rows, rows < n, 0.0)[:, None]
    norms = left + tl.load(y_norms + cols, cols < m, 0.0)[None, :]
    squares = norms - 2.0 * products
    itself = (rows[:, None] == cols[None, :]) & SAME
    pair = (rows[:, None] < n) & (cols[None, :] < m) & (itself == 0)
    close = (squares <= norms * CLOSE_PART) & pair
    zero = tl.where(squares == squares, 0.0, 0.0).to(squares.dtype)
    if tl.max(close.to(tl.int32)) > 0:
        exact = squared_differences(x, y, rows, cols, n, m, width, 1.0, zero)
        squares = tl.where(close, exact, squares)
    value = squares
    if KIND == 1:
        LEAST: tl.constexpr = 1e-280 if squares.dtype == tl.float64 else 1e-30
        LIFT: tl.constexpr = 2.0**900 if squares.dtype == tl.float64 else 2.0**100
        value = tl.sqrt(squares)
        vanishing = (squares < LEAST) & pair
        if tl.max(vanishing.to(tl.int32)) > 0:
            lifted = squared_differences(x, y, rows, cols, n, m, width, LIFT, zero)
            value = tl.where(vanishing, tl.sqrt(lifted) / LIFT, value)
    return tl.where(itself & (left == left), 0.0, value)


@triton.jit
def pairs_kernel(
    x, x_given, x_norms, y, y_given, y_norms, unit, out, n, m, width,
    KIND: tl.constexpr, SAME: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """out (B, n, m): <x_i, y_j>, or the distance times unit, or the squared one times unit^2.
    SAME: y is x, tiles below the diagonal are written by their mirror images."""
    i, j, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    if (j >= i) | (not SAME):
        rows, cols = i * TILE + tl.arange(0, TILE), j * TILE + tl.arange(0, TILE)
        x += b * n * width
        y += b * m * width
        scale = tl.load(unit + b)
        value = tl.zeros((TILE, TILE), scale.dtype)
        for k0 in range(0, width, DEPTH):
            k = k0 + tl.arange(0, DEPTH)
            left = tile_of(x, rows, k, width, 1, n, width)
            right = tile_of(y, k, cols, 1, width, width, m)
            value = tl.dot(left, right, value, input_precision="ieee", out_dtype=value.dtype)
        if KIND != 0:
            value = distances_of(
                value, x_given + b * n * width, y_given + b * m * width, x_norms + b * n,
                y_norms + b * m, rows, cols, n, m, width, KIND, SAME,
            )  # fmt: skip
            value = value * scale * scale if KIND == 2 else value * scale
        if SAME & (i == j):
            value = symmetric(value)
        inside = (rows[:, None] < n) & (cols[None, :] < m)
        place = out + b * n * m
        tl.store(place + rows.to(tl.int64)[:, None] * m + cols[None, :], value, inside)
        if SAME:
            mirrored = (cols[:, None] < m) & (rows[None, :] < n)
            wide = cols.to(tl.int64)[:, None]
            tl.store(place + wide * n + rows[None, :], tl.trans(value), mirrored)


@triton.jit
def weights_of(grad, out, unit, rows, cols, row_stride, col_stride, n, m, KIND: tl.constexpr):
    """dL/dD of a tile in units of the rows: the cotangent, over 2 d for distances (zero where d
    is)."""
    weights = tile_of(grad, rows, cols, row_stride, col_stride, n, m)
    if KIND == 1:
        d = tile_of(out, rows, cols, row_stride, col_stride, n, m) * unit
        NORMAL: tl.constexpr = 2.0**-1022 if d.dtype == tl.float64 else 2.0**-126
        weights = tl.where(d == 0.0, 0.0, weights * 0.5 / tl.where(d < NORMAL, NORMAL, d))
    if KIND == 2:
        weights = weights / unit
    return weights


@triton.jit
def pull_kernel(
    grad, out, row_stride, col_stride, x, x_given, x_sizes, y, y_given, y_sizes, unit, result,
    n, m, width, KIND: tl.constexpr, SAME: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Gram: sum_j g_ij y_j. Distances: 2 sum_j W_ij (x_i - y_j). The weights are read with free
    strides (their transpose gives the gradient of y); SAME adds the transpose."""
    i, c, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows, chunk = i * TILE + tl.arange(0, TILE), c * TILE + tl.arange(0, TILE)
    wide = rows.to(tl.int64)
    grad += b * n * m
    out += b * n * m
    unit = tl.load(unit + b)
    mine = tile_of(x + b * n * width, wide, chunk, width, 1, n, width)
    given = tile_of(x_given + b * n * width, wide, chunk, width, 1, n, width)
    sizes = tl.load(x_sizes + b * n + rows, rows < n, 0.0)
    total = tl.zeros((TILE, TILE), mine.dtype)
    for j0 in range(0, m, TILE):
        cols = (j0 + tl.arange(0, TILE)).to(tl.int64)
        weights = weights_of(grad, out, unit, wide, cols, row_stride, col_stride, n, m, KIND)
        if SAME:
            weights += weights_of(grad, out, unit, wide, cols, col_stride, row_stride, n, m, KIND)
        others = tile_of(y + b * m * width, cols, chunk, width, 1, m, width)
        if KIND == 0:
            total = tl.dot(weights, others, total, input_precision="ieee", out_dtype=total.dtype)
        else:
            lengths = tile_of(out, wide, cols, row_stride, col_stride, n, m)
            lengths = (lengths if KIND == 1 else tl.sqrt(lengths)) * unit
            other_sizes = tl.load(y_sizes + b * m + cols, cols < m, 0.0)
            itself = (wide[:, None] == cols[None, :]) & SAME
            if is_lossy(weights, sizes, other_sizes, lengths, itself):
                total += sum_of_differences(
                    weights, given, y_given + b * m * width, cols, chunk, m, width, TILE
                )
            else:
                total += tl.sum(weights, 1)[:, None] * mine
                total -= tl.dot(weights, others, input_precision="ieee", out_dtype=total.dtype)
    if KIND != 0:
        total = 2.0 * total
    inside = (rows[:, None] < n) & (chunk[None, :] < width)
    tl.store(result + b * n * width + wide[:, None] * width + chunk[None, :], total, inside)


# ---- launchers: the same signatures as the ops in csrc/relation/relation.cpp ---------------------


def pairwise_distance(x: Tensor, y: Tensor | None, squared: bool) -> Tensor:
    """x (B, N, D), y (B, M, D) or None -> (B, N, M)."""
    rows = Rows.of(x, y)
    return pairs(SQUARED if squared else DISTANCE, rows, (1 / rows.scale).view(-1))


def pairwise_distance_backward(
    grad: Tensor, x: Tensor, y: Tensor | None, squared: bool, out: Tensor
) -> tuple[Tensor, Tensor]:
    """Cotangents of x and y; the second is empty without y."""
    kind = SQUARED if squared else DISTANCE
    rows = Rows.of(x, y)
    return _pull_both(kind, grad, out.contiguous(), rows, rows.scale.view(-1))


def pairwise_cosine(x: Tensor, y: Tensor | None) -> Tensor:
    """x (B, N, D), y (B, M, D) or None -> (B, N, M)."""
    return pairs(GRAM, Rows(*_unit(x, y)), x.new_ones(x.shape[0]))


def pairwise_cosine_backward(grad: Tensor, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cotangents of x and y; the second is empty without y."""
    gx, gy = _pull_both(GRAM, grad, grad, Rows(*_unit(x, y)), x.new_ones(x.shape[0]))
    return to_unit_rows(gx, x), gy if y is None else to_unit_rows(gy, y)


# ---- behind them ---------------------------------------------------------------------------------


class Rows:
    """One or two sets of rows (B, N, D) and (B, M, D) as the kernels read them, y = None being x.

    x and y are what products are made of, x_given and y_given what differences are made of.
    """

    scale: Tensor

    def __init__(
        self, x: Tensor, y: Tensor | None, given: tuple[Tensor, Tensor | None] | None = None
    ) -> None:
        self.x, self.y, self.same = x, x if y is None else y, y is None
        x_given, y_given = given or (x, y)
        self.x_given, self.y_given = x_given, x_given if y_given is None else y_given
        self.x_norms = self.x.square().sum(-1)
        self.y_norms = self.x_norms if self.same else self.y.square().sum(-1)

    @classmethod
    def of(cls, x: Tensor, y: Tensor | None) -> Rows:
        """Scaled by a power of two, `scale` (B, 1, 1), and centred."""
        scale = power_of_two_scale(x)
        if y is not None:
            scale = torch.minimum(scale, power_of_two_scale(y))
        given = [(part * scale).contiguous() for part in ((x,) if y is None else (x, y))]
        parts = [part.contiguous() for part in centre(*given)]
        second = (parts[1], given[1]) if y is not None else (None, None)
        rows = cls(parts[0], second[0], (given[0], second[1]))
        rows.scale = scale
        return rows

    def turned(self) -> Rows:
        """y against x."""
        return Rows(self.y, self.x, (self.y_given, self.x_given))


def _unit(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return unit_rows(x).contiguous(), None if y is None else unit_rows(y).contiguous()


def pairs(kind: int, rows: Rows, unit: Tensor) -> Tensor:
    """pairs_kernel on rows (B, N, D), (B, M, D), and unit (B,) -> (B, N, M)."""
    batch, n, width = rows.x.shape
    m = rows.y.shape[1]
    out = rows.x.new_empty((batch, n, m))
    if out.numel():
        options = tiling(out.dtype)
        grid = (cdiv(n, options["TILE"]), cdiv(m, options["TILE"]), batch)
        pairs_kernel[grid](
            rows.x, rows.x_given, rows.x_norms, rows.y, rows.y_given, rows.y_norms, unit, out,
            n, m, width, KIND=kind, SAME=rows.same, **options,
        )  # fmt: skip
    return out


def pull(
    kind: int, grad: Tensor, out: Tensor, strides: tuple[int, int], rows: Rows, unit: Tensor
) -> Tensor:
    """pull_kernel: the cotangent of rows.x (B, N, D) for that of the pairs, read with `strides`;
    out * unit (B,) are the pairs in the units of the rows."""
    batch, n, width = rows.x.shape
    result = torch.empty_like(rows.x)
    if result.numel():
        options = tiling(result.dtype)
        del options["DEPTH"]
        grid = (cdiv(n, options["TILE"]), cdiv(width, options["TILE"]), batch)
        pull_kernel[grid](
            grad, out, *strides, rows.x, rows.x_given, rows.x_norms.sqrt(), rows.y, rows.y_given,
            rows.y_norms.sqrt(), unit, result, n, rows.y.shape[1], width,
            KIND=kind, SAME=rows.same, **options,
        )  # fmt: skip
    return result


def _pull_both(
    kind: int, grad: Tensor, out: Tensor, rows: Rows, unit: Tensor
) -> tuple[Tensor, Tensor]:
    grad = grad.contiguous()
    m = grad.shape[2]
    gx = pull(kind, grad, out, (m, 1), rows, unit)
    return gx, gx.new_empty(0) if rows.same else pull(kind, grad, out, (1, m), rows.turned(), unit)
