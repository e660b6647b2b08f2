"""Triton kernels of similarity_kl_loss, its GPU backend; imported when first used.

`statistics_kernel` finds the sum of exponentials of every row of similarities, `pull_kernel` makes
the similarities of both networks again, a tile at a time, and from them the loss and the gradient,
so that memory is O(N D). A row's part of the gradient as a key of others needs their sums only: a
block of rows owns its gradient. Rows come centred where they lie close together, see
csrc/similarity_kl/rows.h. Products are IEEE (no TF32); sums have a fixed order. Batch entries with
logits too large for float go through the same kernels in double, chosen on the device.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kdops._triton import CHUNK, inner_products, streamed_grid, tile_of, tiling
from kdops.ops.similarity_kl.centred import Network
from kdops.ops.similarity_kl.reference import row_count

# A logit of a pair that does not meet, as `far_of` of the kernels: finite, so that such logits
# subtract, and far beyond all others.
FAR = {torch.float32: 2.0**124, torch.float64: 2.0**1020}
LARGEST_LOGIT = 100.0  # as kLargestLogit of csrc/similarity_kl/similarity_kl_cpu.cpp

# ---- device functions ----------------------------------------------------------------------------


@triton.jit
def far_of(x):
    if x.dtype == tl.float64:
        value = tl.full((), 2.0**1020, tl.float64)
    else:
        value = tl.full((), 2.0**124, tl.float32)
    return value


@triton.jit
def divergence(log_t, log_s, sum_t, sum_s):
    """Of teacher's and student's shares p and q, from log2 of exponentials and of their sums: p - q
    without cancellation; p log(p / q) - (p - q), never negative, which adds up to the divergence.
    In float sum_s is sum_t minus the student's: the difference of two logits has more digits. In
    double one network's logits may be far larger than the other's."""
    TERMS: tl.constexpr = 14 if log_t.dtype == tl.float64 else 8
    log_p = log_t - sum_t
    if log_t.dtype == tl.float64:
        log_q = log_s - sum_s
        gap = log_p - log_q
    else:
        gap = (log_t - log_s) - sum_s
        log_q = log_p - gap
    size = tl.abs(gap)
    rest = tl.exp2(-size)
    near = tl.minimum(size, 0.5) * 0.6931471805599453
    series = near * 0.0 + 1.0
    for i in tl.static_range(TERMS - 1):
        series = 1.0 - series * near * (1.0 / (TERMS - i))
    base = tl.exp2(tl.maximum(log_p, log_q))
    lost = base * tl.where(size < 0.5, near * series, 1.0 - rest)
    difference = tl.where(gap < 0.0, -lost, lost)
    p = tl.where(gap < 0.0, base * rest, base)
    return difference, p * (gap * 0.6931471805599453) - difference


# ---- kernels -------------------------------------------------------------------------------------


@triton.jit
def statistics_kernel(
    x, y, bias, rate, chosen, tops, sums, n, m, width,
    WITHOUT_SELF: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Rows x (B, n, width) against keys y (B, m, width) of chosen (B) batch entries, a block of
    rows against the column tiles part, part + parts, ...: 2^tops sums (parts, B, n) is the sum over
    j of 2^l_ij, l_ij = rate <x_i, y_j> + bias_j."""
    tiles = tl.cdiv(n, TILE)
    b, part = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(2).to(tl.int64)
    rows = (tl.program_id(0) % tiles * TILE + tl.arange(0, TILE)).to(tl.int64)
    factor = tl.load(rate)
    top = tl.full((TILE,), float("-inf"), x.dtype.element_ty)
    total = tl.zeros((TILE,), x.dtype.element_ty)
    end = tl.where(tl.load(chosen + b) != 0, m, 0)
    for j0 in range(tl.program_id(2) * TILE, end, tl.num_programs(2) * TILE):
        cols = (j0 + tl.arange(0, TILE)).to(tl.int64)
        logits = factor * inner_products(
            x + b * n * width, rows, y + b * m * width, cols, n, m, width, DEPTH
        )
        if WITHOUT_SELF:
            logits = tl.where(rows[:, None] == cols[None, :], -far_of(logits), logits)
        logits += tl.load(bias + b * m + cols, cols < m, float("-inf"))[None, :]
        raised = tl.maximum(top, tl.max(logits, 1))
        total = total * tl.exp2(top - raised) + tl.sum(tl.exp2(logits - raised[:, None]), 1)
        top = raised
    place = (part * (tl.num_programs(0) // tiles) + b) * n + rows
    tl.store(tops + place, top, rows < n)
    tl.store(sums + place, total, rows < n)


@triton.jit
def pull_kernel(
    own_s, own_t, own_bias, own_logs, other_s, other_t, other_bias, other_logs, rates, chosen,
    losses, totals, pulled, n, m, s_width, t_width, ROWS: tl.constexpr, KEYS: tl.constexpr,
    WITHOUT_SELF: tl.constexpr, GRADIENT: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Own (B, n, .) against other (B, m, .) rows of both networks, dealt out as above.

    w_ij = p_S - p_T, where i is a row and j its key (ROWS), or i a key and j its row (KEYS), or the
    sum of both. The loss (parts, B tiles) of the rows; of the student sum_j w_ij other_j (parts, B,
    n, s_width) and sum_j w_ij (parts, B, n). Biases (B, 2, .): the student's, the teacher's. Logs
    (B, 2, .) of the sums of exponentials: student's as `divergence` wants it, teacher's.
    """
    tiles = tl.cdiv(n, TILE)
    b, part = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(2).to(tl.int64)
    rows = (tl.program_id(0) % tiles * TILE + tl.arange(0, TILE)).to(tl.int64)
    chunk = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    own, other = b * 2 * n + rows, b * 2 * m
    pull = tl.zeros((TILE, CHUNK), own_s.dtype.element_ty)
    loss = tl.zeros((TILE, TILE), own_s.dtype.element_ty)
    total = tl.zeros((TILE,), own_s.dtype.element_ty)
    rate_s, rate_t = tl.load(rates), tl.load(rates + 1)
    end = tl.where(tl.load(chosen + b) != 0, m, 0)
    for j0 in range(tl.program_id(2) * TILE, end, tl.num_programs(2) * TILE):
        cols = (j0 + tl.arange(0, TILE)).to(tl.int64)
        s = rate_s * inner_products(
            own_s + b * n * s_width, rows, other_s + b * m * s_width, cols, n, m, s_width, DEPTH
        )
        t = rate_t * inner_products(
            own_t + b * n * t_width, rows, other_t + b * m * t_width, cols, n, m, t_width, DEPTH
        )
        if WITHOUT_SELF:
            itself = rows[:, None] == cols[None, :]
            s, t = tl.where(itself, -far_of(s), s), tl.where(itself, -far_of(t), t)
        inside = (rows[:, None] < n) & (cols[None, :] < m)
        weights = tl.zeros((TILE, TILE), own_s.dtype.element_ty)
        if ROWS:
            log_t = t + tl.load(other_bias + other + m + cols, cols < m, 0.0)[None, :]
            log_s = s + tl.load(other_bias + other + cols, cols < m, 0.0)[None, :]
            sum_s = tl.load(own_logs + own, rows < n, 0.0)[:, None]
            sum_t = tl.load(own_logs + own + n, rows < n, 0.0)[:, None]
            difference, value = divergence(log_t, log_s, sum_t, sum_s)
            loss += tl.where(inside, value, 0.0)
            weights -= difference
        if KEYS:
            log_t = t + tl.load(own_bias + own + n, rows < n, 0.0)[:, None]
            log_s = s + tl.load(own_bias + own, rows < n, 0.0)[:, None]
            sum_s = tl.load(other_logs + other + cols, cols < m, 0.0)[None, :]
            sum_t = tl.load(other_logs + other + m + cols, cols < m, 0.0)[None, :]
            weights -= divergence(log_t, log_s, sum_t, sum_s)[0]
        if GRADIENT:
            weights = tl.where(inside, weights, 0.0)
            total += tl.sum(weights, 1)
            others = tile_of(other_s + b * m * s_width, cols, chunk, s_width, 1, m, s_width)
            pull = tl.dot(weights, others, pull, input_precision="ieee", out_dtype=pull.dtype)
    if ROWS and tl.program_id(1) == 0:
        tl.store(losses + part * tl.num_programs(0) + tl.program_id(0), tl.sum(loss))
    if GRADIENT:
        place = (part * (tl.num_programs(0) // tiles) + b) * n + rows
        if tl.program_id(1) == 0:
            tl.store(totals + place, total, rows < n)
        room = (rows[:, None] < n) & (chunk[None, :] < s_width)
        tl.store(pulled + place[:, None] * s_width + chunk[None, :], pull, room)


# ---- launcher: the same signature as the op in csrc/similarity_kl/similarity_kl.cpp --------------


def similarity_kl(
    student: Tensor,
    keys: Tensor | None,
    teacher: Tensor,
    teacher_keys: Tensor | None,
    mask: Tensor | None,
    student_scale: float,
    teacher_scale: float,
    cosine: bool,
    self_pairs: bool,
    gradients: bool,
    of_keys: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, gradient of student, gradient of keys); gradients are empty when not wanted."""
    empty = student.new_empty(0)
    if 0 in (*student.shape[:2], student.shape[1] if keys is None else keys.shape[1]):
        g_keys = keys.new_zeros(keys.shape) if of_keys and keys is not None else empty
        return student.new_zeros(()), torch.zeros_like(student) if gradients else empty, g_keys
    s = Network(student, keys, mask, student_scale, cosine)
    t = Network(teacher, teacher_keys, mask, teacher_scale, cosine)
    passes = [
        _streamed(s, t, not self_pairs, chosen, dtype, gradients, of_keys)
        for dtype, chosen in _passes(student.dtype, s, t)
    ]
    losses, pulled, totals, pulled_keys, totals_keys = (sum(r) for r in zip(*passes, strict=True))
    count = row_count(s.rows, mask)
    factor = student_scale / count
    g_student = g_keys = empty
    if gradients:
        g_student = s.gradient(pulled, totals, s.rows, s.inverse) * factor
        if mask is not None:
            g_student = torch.where(mask.unsqueeze(-1), g_student, 0.0)
    if of_keys:
        g_keys = s.gradient(pulled_keys, totals_keys, s.keys, s.keys_inverse) * factor
    loss = losses.sum() / count
    return loss.to(student.dtype), g_student.to(student.dtype), g_keys.to(student.dtype)


# ---- behind it -----------------------------------------------------------------------------------


def _passes(dtype: torch.dtype, s: Network, t: Network) -> list[tuple[torch.dtype, Tensor]]:
    """The dtypes that are computed in, and the batch entries (B,) that are."""
    largest = torch.maximum(s.largest_logit, t.largest_logit)
    small = s.cosine and max(abs(s.scale), abs(t.scale)) <= LARGEST_LOGIT
    if small or dtype == torch.float64:
        return [(dtype, torch.ones_like(largest, dtype=torch.bool))]
    large = largest > LARGEST_LOGIT
    return [(dtype, ~large), (torch.float64, large)]


class Side(NamedTuple):  # rows or keys of both networks: biases of keys, logs of rows
    student: Tensor
    teacher: Tensor
    bias: Tensor
    logs: Tensor


def _streamed(
    s: Network,
    t: Network,
    without_self: bool,
    chosen: Tensor,
    dtype: torch.dtype,
    gradients: bool,
    of_keys: bool,
) -> tuple[Tensor, ...]:
    """The sum of KL divergences (B,); of the student's rows the pull (B, N, D) and sums of weights
    (B, N, 1), and of its keys, empty if not wanted. Zeros for batch entries that are not chosen."""
    same = s.keys is s.rows
    placed = [(n.rows.to(dtype).contiguous(), n.keys.to(dtype).contiguous()) for n in (s, t)]
    biases = [n.biases(dtype, -FAR[dtype]) for n in (s, t)]
    numbers = chosen.int()
    of_s, of_t = (
        _logs(*rows_and_keys, bias, n.rate, numbers, without_self)
        for rows_and_keys, bias, n in zip(placed, biases, (s, t), strict=True)
    )
    if s.mask is not None:  # of padding no key has a share
        of_s, of_t = (x.masked_fill(~s.mask, FAR[dtype]) for x in (of_s, of_t))
    first = of_s if dtype == torch.float64 else of_t - of_s
    logs = torch.stack([first, of_t], 1).to(dtype)
    bias = torch.stack(biases, 1)
    rows = Side(placed[0][0], placed[1][0], bias, logs)
    keys = rows if same else Side(placed[0][1], placed[1][1], bias, logs)
    rates = torch.stack([logs.new_full((), n.rate) for n in (s, t)])
    found = _pull(rows, keys, rates, numbers, (True, same), without_self, gradients)
    if not of_keys:
        return *found, found[0].new_empty(0), found[0].new_empty(0)
    return *found, *_pull(keys, rows, rates, numbers, (False, True), without_self, True)[1:]


def _logs(
    x: Tensor, y: Tensor, bias: Tensor, rate: float, chosen: Tensor, without_self: bool
) -> Tensor:
    """log2 of the sums of exponentials (B, N), in double, of rows x (B, N, D), keys y (B, M, D)."""
    (batch, n, width), m = x.shape, y.shape[1]
    options = tiling(x.dtype)
    grid = streamed_grid(batch, n, m, 0, options["TILE"], False)
    tops, sums = (x.new_empty((grid[2], batch, n)) for _ in range(2))
    statistics_kernel[grid](
        x, y, bias, x.new_full((1,), rate), chosen, tops, sums, n, m, width,
        WITHOUT_SELF=without_self, **options,
    )  # fmt: skip
    logs = tops.double() + sums.double().log2()
    top = logs.amax(0)
    return (logs - top).exp2().sum(0).log2() + top


def _pull(
    own: Side,
    other: Side,
    rates: Tensor,
    chosen: Tensor,
    roles: tuple[bool, bool],
    without_self: bool,
    gradients: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """pull_kernel for own against other rows: losses (B,), pull and sums of weights, in double."""
    (batch, n, width), m = own.student.shape, other.student.shape[1]
    options = tiling(own.student.dtype)
    grid = streamed_grid(batch, n, m, width, options["TILE"], gradients)
    blocks, _, parts = grid
    losses = rates.new_zeros((parts, batch, blocks // batch))
    totals = rates.new_empty((parts, batch, n, 1) if gradients else (1, 0))
    pulled = rates.new_empty((parts, batch, n, width) if gradients else (1, 0))
    pull_kernel[grid](
        *own, *other, rates, chosen, losses, totals, pulled, n, m, width, own.teacher.shape[2],
        ROWS=roles[0], KEYS=roles[1], WITHOUT_SELF=without_self, GRADIENT=gradients, **options,
    )  # fmt: skip
    return losses.double().sum((0, 2)), pulled.double().sum(0), totals.double().sum(0)
