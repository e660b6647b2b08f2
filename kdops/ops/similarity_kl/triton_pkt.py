"""Triton kernel of pkt_loss, its GPU backend; imported when first used.

`pkt_kernel` meets a block of rows with all others in one pass, since the sums of the rows of shares
are known from the mean row; it makes a tile of shares of both networks, adds up the loss and the
gradient, and forgets the tile, so that memory is O(N D). csrc/similarity_kl/pkt.h has the formulas:
in units of equal shares P = 1 + q, and only the deviations q are rounded. Products are IEEE (no
TF32); sums have a fixed order.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kdops._triton import CHUNK, inner_products, streamed_grid, tile_of, tiling
from kdops.ops.similarity_kl.reference import NORM_PADDING, padded_norm

# ---- device functions ----------------------------------------------------------------------------


@triton.jit
def log_quotient(a, b, difference):
    """log(a / b) for a, b > 0, difference = a - b. Where they are close it keeps its digits, as 2
    artanh(s), s = (a - b) / (a + b)."""
    TERMS: tl.constexpr = 11 if a.dtype == tl.float64 else 5
    quotient = a / b
    s = difference / (a + b)
    near = (quotient > 0.7) & (quotient < 1.42)
    square = tl.where(near, s * s, 0.0)
    series = square * 0.0
    for i in tl.static_range(TERMS):
        series = series * square + 2.0 / (2 * (TERMS - 1 - i) + 1)
    return tl.where(near, s * series, tl.log(quotient))


@triton.jit
def slope_of(q_s, q_t, padding):
    """E = 1 - (P_T + h) / (P_S + h) of deviations q, as a quotient; P_S may be rounded below 0."""
    return (q_s - q_t + padding) / (tl.maximum(1.0 + q_s, 0.0) + padding)


# ---- kernel --------------------------------------------------------------------------------------


@triton.jit
def pkt_kernel(
    x, y, biases, factors, padding, losses, shares, totals, pulled, n, x_width, y_width,
    GRADIENT: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Centred rows x (n, x_width), y (n, y_width) of student and teacher, their biases <z_j, c> and
    factors w (2, n). A block of rows against the column tiles part, part + parts, ...: the loss
    (parts, tiles), of rows sum_j E_ij P_S,ij (parts, n), and with w_ij = E_ij w_i + E_ji w_j the
    sums of w_ij (parts, n) and of w_ij x_j (parts, n, x_width)."""
    rows = (tl.program_id(0) * TILE + tl.arange(0, TILE)).to(tl.int64)
    chunk = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    part = tl.program_id(2).to(tl.int64)
    pull = tl.zeros((TILE, CHUNK), x.dtype.element_ty)
    loss = tl.zeros((TILE, TILE), x.dtype.element_ty)
    share = tl.zeros((TILE,), x.dtype.element_ty)
    total = tl.zeros((TILE,), x.dtype.element_ty)
    h = tl.load(padding)
    for j0 in range(tl.program_id(2) * TILE, n, tl.num_programs(2) * TILE):
        cols = (j0 + tl.arange(0, TILE)).to(tl.int64)
        s = inner_products(x, rows, x, cols, n, n, x_width, DEPTH)
        t = inner_products(y, rows, y, cols, n, n, y_width, DEPTH)
        inside = (rows[:, None] < n) & (cols[None, :] < n)
        w_s = tl.load(factors + rows, rows < n, 0.0)
        w_t = tl.load(factors + n + rows, rows < n, 0.0)
        q_s = (s + tl.load(biases + cols, cols < n, 0.0)[None, :]) * w_s[:, None]
        q_t = (t + tl.load(biases + n + cols, cols < n, 0.0)[None, :]) * w_t[:, None]
        p_s, p_t = tl.maximum(1.0 + q_s, 0.0), tl.maximum(1.0 + q_t, 0.0)
        value = p_t * log_quotient(p_t + h, p_s + h, q_t - q_s) + (q_s - q_t)
        loss += tl.where(inside, value, 0.0)
        if GRADIENT:
            slope = slope_of(q_s, q_t, h)
            share += tl.sum(tl.where(inside, slope * p_s, 0.0), 1)
            other_s = tl.load(factors + cols, cols < n, 0.0)[None, :]
            other_t = tl.load(factors + n + cols, cols < n, 0.0)[None, :]
            b_s = tl.load(biases + rows, rows < n, 0.0)
            b_t = tl.load(biases + n + rows, rows < n, 0.0)
            mirrored = slope_of((s + b_s[:, None]) * other_s, (t + b_t[:, None]) * other_t, h)
            weights = tl.where(inside, slope * w_s[:, None] + mirrored * other_s, 0.0)
            total += tl.sum(weights, 1)
            others = tile_of(x, cols, chunk, x_width, 1, n, x_width)
            pull = tl.dot(weights, others, pull, input_precision="ieee", out_dtype=pull.dtype)
    first = tl.program_id(1) == 0
    if first:
        tl.store(losses + part * tl.num_programs(0) + tl.program_id(0), tl.sum(loss))
    if GRADIENT:
        if first:
            tl.store(shares + part * n + rows, share, rows < n)
            tl.store(totals + part * n + rows, total, rows < n)
        room = (rows[:, None] < n) & (chunk[None, :] < x_width)
        place = (part * n + rows[:, None]) * x_width + chunk[None, :]
        tl.store(pulled + place, pull, room)


# ---- launcher: the same signature as the op in csrc/similarity_kl/similarity_kl.cpp --------------


def pkt(student: Tensor, teacher: Tensor, epsilon: float, gradients: bool) -> tuple[Tensor, Tensor]:
    """(loss, gradient of student (N, D)); the gradient is empty when it is not wanted."""
    (n, width), dtype = student.shape, student.dtype
    if n == 0:
        return student.new_zeros(()), student.new_zeros((0, width) if gradients else 0)
    s, t = Normalised(student), Normalised(teacher)
    x, y = s.centred.to(dtype).contiguous(), t.centred.to(dtype).contiguous()
    biases, factors = (torch.stack(r).to(dtype) for r in ((s.bias, t.bias), (s.factor, t.factor)))
    options = tiling(dtype)
    grid = streamed_grid(1, n, n, width, options["TILE"], gradients)
    tiles, _, parts = grid
    losses = x.new_empty((parts, tiles))
    sums = x.new_zeros((2, parts, n))
    pulled = x.new_empty((parts, n, width) if gradients else 0)
    pkt_kernel[grid](
        x, y, biases, factors, x.new_full((1,), epsilon * n), losses, sums[0], sums[1], pulled,
        n, width, y.shape[1], GRADIENT=gradients, **options,
    )  # fmt: skip
    loss = (losses.double().sum() / n**3).to(dtype)
    if not gradients:
        return loss, pulled
    shares, totals = sums.double().sum(1)
    return loss, s.gradient(pulled.double().sum(0), shares, totals).to(dtype)


class Normalised:
    """Rows (N, D) over their padded norms, in double: minus their mean row, with the biases <z_j,
    c> (N,) and the factors 1 / (1 + <x_i, c>) (N,) that make shares of their products."""

    def __init__(self, rows: Tensor) -> None:
        given = rows.double().contiguous()
        self.inverse = padded_norm(given)[1]
        unit = given * self.inverse
        self.mean = unit.mean(0)
        self.centred = unit - self.mean
        self.bias = self.centred @ self.mean
        self.factor = 1 / (1 + self.bias + self.mean.square().sum())

    def gradient(self, pulled: Tensor, shares: Tensor, totals: Tensor) -> Tensor:
        """Of the rows as they were given, from what pkt_kernel found. The sums of shares take one
        vector from all rows' gradients, which is known only now. A padded norm leaves rows shorter
        than one, by `length`, and of their direction 1 - length."""
        n = len(self.centred)
        lost = (shares / n * self.factor).unsqueeze(1)
        total = totals.unsqueeze(1) - n * lost - lost.sum()
        unit = self.centred + self.mean
        moved = pulled - (lost * self.centred).sum(0) - total * self.centred
        length = 1 - NORM_PADDING * self.inverse
        along = (moved * unit).sum(-1, keepdim=True) / length.square().clamp(min=1e-300)
        part = along - (1 - length) * (along + total)
        return (moved - part * unit) * (self.inverse / n**3)
