"""Triton kernel of rbf_affinity_loss, its GPU backend; imported when first used.

`loss_kernel` meets a block of rows with all columns: it makes both Gaussians of a tile, adds up the
loss and the student's gradient, and forgets the tile, so that memory is O(N D). What triton.py says
of rows and sums holds here, too.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kdops._distances import centre
from kdops._triton import PROGRAMS, cdiv, is_lossy, sum_of_differences, tile_of, tiling
from kdops.ops.rbf.triton import bandwidth_of, sizes_of, squared_distances


@triton.jit
def gaussian_difference(p, q, TERMS: tl.constexpr):
    """exp(-p), exp(-q) and their difference, by the series of expm1 where they are close."""
    k_p, k_q = tl.exp(-p), tl.exp(-q)
    gap = tl.where(p == q, 0.0, q - p)  # also Inf - Inf
    size = tl.minimum(tl.abs(gap), 0.5)
    series = size * 0.0 + 1.0
    for i in tl.static_range(TERMS - 1):
        series = 1.0 - series * size * (1.0 / (TERMS - i))
    nearest = tl.maximum(k_p, k_q) * size * series  # base * (1 - exp(-|gap|))
    close = tl.where(gap < 0.0, -nearest, nearest)
    return k_p, k_q, tl.where(tl.abs(gap) < 0.5, close, k_p - k_q)


@triton.jit
def loss_kernel(
    s, s_given, s_norms, s_sizes, t, t_given, t_norms, gamma, losses, slopes, gradient,
    n, s_width, t_width, parts,
    GRADIENT: tl.constexpr, TERMS: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Rows of tile i against the column tiles part, part + parts, ...: sums of (K_S - K_T)^2 and of
    (K_S - K_T)(q K_T - p K_S), and the gradient -2 gamma sum_j w_ij (s_i - s_j) of a chunk."""
    i, c, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows, chunk = i * TILE + tl.arange(0, TILE), c * TILE + tl.arange(0, TILE)
    g = tl.load(gamma)
    mine = tile_of(s, rows, chunk, s_width, 1, n, s_width)
    given = tile_of(s_given, rows, chunk, s_width, 1, n, s_width)
    sizes = tl.load(s_sizes + rows, rows < n, 0.0)
    total = tl.zeros((TILE, TILE), mine.dtype)
    loss = tl.sum(total, 1)
    slope = tl.sum(total, 1)
    for j0 in range(part * TILE, n, parts * TILE):
        cols = j0 + tl.arange(0, TILE)
        p = (
            squared_distances(
                s, s_given, s_norms, s, s_given, s_norms, rows, cols, n, n, s_width, True, DEPTH
            )
            * g
        )
        q = (
            squared_distances(
                t, t_given, t_norms, t, t_given, t_norms, rows, cols, n, n, t_width, True, DEPTH
            )
            * g
        )
        k_s, k_t, delta = gaussian_difference(p, q, TERMS)
        inside = (rows[:, None] < n) & (cols[None, :] < n)
        delta = tl.where(inside, delta, 0.0)
        loss += tl.sum(delta * delta, 1)
        if GRADIENT:
            decay = tl.where(k_t > 0.0, q * k_t, k_t) - tl.where(k_s > 0.0, p * k_s, k_s)
            slope += tl.sum(tl.where(inside, delta * decay, 0.0), 1)
            weights = tl.where(inside, delta * k_s, 0.0)
            other_sizes = tl.load(s_sizes + cols, cols < n, 0.0)
            itself = rows[:, None] == cols[None, :]
            if is_lossy(weights, sizes, other_sizes, tl.sqrt(p / g), itself):
                total += sum_of_differences(
                    weights, given, s_given, cols.to(tl.int64), chunk, n, s_width, TILE
                )
            else:
                others = tile_of(s, cols, chunk, s_width, 1, n, s_width)
                total += tl.sum(weights, 1)[:, None] * mine
                total -= tl.dot(weights, others, input_precision="ieee", out_dtype=total.dtype)
    if c == 0:
        place = part * tl.num_programs(0) + i
        tl.store(losses + place, tl.sum(loss, 0))
        tl.store(slopes + place, tl.sum(slope, 0))
    if GRADIENT:
        value = -2.0 * g * total
        inside = (rows[:, None] < n) & (chunk[None, :] < s_width)
        place = gradient + part.to(tl.int64) * n * s_width
        tl.store(place + rows.to(tl.int64)[:, None] * s_width + chunk[None, :], value, inside)


def rbf_affinity_loss(
    student: Tensor, gamma: Tensor | None, teacher: Tensor, value: float, gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, gradient of student (N, D_S), gradient of gamma); gradients empty when not wanted."""
    given = student.contiguous(), teacher.contiguous()
    s, t = centre(given[0])[0], centre(given[1])[0]
    n, width = s.shape
    options = tiling(s.dtype)
    tiles = max(cdiv(n, options["TILE"]), 1)
    chunks = max(cdiv(width, options["TILE"]), 1) if gradients else 1
    parts = max(1, min(tiles, PROGRAMS // (tiles * chunks)))
    sums = s.new_zeros((2, parts * tiles))
    partial = s.new_zeros((parts, n, width) if gradients else (1, 1, 1))
    bandwidth = bandwidth_of(s[None], None if gamma is None else gamma.reshape(1), value)
    norms = [r.square().sum(-1) for r in (s, t)]
    if n:
        loss_kernel[(tiles, chunks, parts)](
            s, given[0], norms[0], sizes_of(norms[0]), t, given[1], norms[1], bandwidth,
            sums[0], sums[1], partial,
            n, width, t.shape[1], parts,
            GRADIENT=gradients, TERMS=18 if s.dtype == torch.float64 else 10, **options,
        )  # fmt: skip
    pairs = max(n * n, 1)
    loss, slope = sums.double().sum(1).to(s.dtype) / pairs
    if not gradients:
        return loss, s.new_empty(0), s.new_empty(0)
    g_gamma = s.new_empty(0) if gamma is None else 2 * slope / gamma
    return loss, partial.sum(0) * (4 / pairs), g_gamma
