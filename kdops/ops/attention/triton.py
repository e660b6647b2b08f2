"""Triton kernels of the attention map, the GPU backend; imported when first used.

A program owns TILE positions of one map x (C, L) and walks its channels, TILE at a time, so that x
is read once forward and once backward. x, the cotangents and the gradient have free strides: only
the order of the entries inside a tile depends on which dimension is contiguous. What a lane has
gathered is folded over the lanes at the end, in a fixed order.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kdops._maths import power_of_two_scale
from kdops._triton import cdiv, tile_of
from kdops.ops.attention import gradient, reference
from kdops.ops.attention.registration import empty_gradient

TILE = 32  # channels and positions of a tile: whole cache lines whichever of them is contiguous
OPTIONS = {"TILE": TILE, "num_warps": 4}
FAR = {torch.float32: 2.0**60, torch.float64: 2.0**508}  # entries of a map that are out of range


# ---- device functions ----------------------------------------------------------------------------


@triton.jit
def power_of(size, p, EXPONENT: tl.constexpr):
    """size^p for size >= 0. EXPONENT is p where that is 1, 2, 3 or 4; else p points to it."""
    if EXPONENT == 1:
        value = size
    elif EXPONENT == 2:
        value = size * size
    elif EXPONENT == 3:
        value = size * (size * size)
    elif EXPONENT == 4:
        value = (size * size) * (size * size)
    else:
        positive = tl.where(size == 0.0, 1.0, size)
        value = tl.where(size == 0.0, 0.0, tl.exp2(tl.load(p) * tl.log2(positive)))
    return value


@triton.jit
def slope_of(x, p, EXPONENT: tl.constexpr):
    """p |x|^(p-1) sign(x); zero at zero for every p, also where the limit is not (p <= 1)."""
    size = tl.abs(x)
    if EXPONENT == 1:
        value = tl.where(x == 0.0, 0.0, tl.where(x < 0.0, -1.0, 1.0))
    elif EXPONENT == 2:
        value = x + x
    elif EXPONENT == 3:
        value = 3.0 * x * size
    elif EXPONENT == 4:
        value = 4.0 * x * (x * x)
    else:
        exponent = tl.load(p)
        positive = tl.where(size == 0.0, 1.0, size)
        slope = exponent * tl.exp2((exponent - 1.0) * tl.log2(positive))
        value = tl.where(x == 0.0, 0.0, tl.where(x < 0.0, -slope, slope))
    return value


@triton.jit
def pulled(cotangent, x, unit, p, EXPONENT: tl.constexpr, UNIT: tl.constexpr):
    """cotangent * slope of |unit x|^p by x (UNIT; else of |x|^p): a finite one stays finite."""
    if UNIT:
        value = cotangent * slope_of(x * unit, p, EXPONENT)
        product = value * unit
        most = tl.where(product < 0.0, -largest_number(x), largest_number(x))
        value = tl.where(tl.abs(product) > tl.abs(most), most + (value - value), product)
    else:
        value = cotangent * slope_of(x, p, EXPONENT)
    return value


@triton.jit
def largest_number(x):
    """The largest finite number of the type of x."""
    if x.dtype == tl.float64:
        value = tl.full((), 1.7976931348623157e308, tl.float64)
    else:
        value = tl.full((), 3.4028234663852886e38, tl.float32)
    return value


@triton.jit
def beats(size, top):
    """Whether size replaces top: it is larger, or the first NaN, which nothing replaces."""
    return (size > top) | ((size != size) & (top == top))


@triton.jit
def first_largest(
    x, position, channel_stride, position_stride, channels, length, TILE: tl.constexpr
):
    """The first channel of largest |x|, or the first with a NaN, for a block of positions."""
    lane = tl.arange(0, TILE)
    top = tl.zeros((TILE, TILE), x.dtype.element_ty) - 1.0
    channel = tl.zeros((TILE, TILE), tl.int32)
    for c0 in range(0, channels, TILE):
        rows = c0 + lane
        part = tile_of(
            x, rows.to(tl.int64), position, channel_stride, position_stride, channels, length
        )
        size = tl.where(rows[:, None] < channels, tl.abs(part), -1.0)
        better = beats(size, top)
        top = tl.where(better, size, top)
        channel = tl.where(better, rows[:, None], channel)
    lost = top != top
    any_lost = tl.max(lost.to(tl.int32), 0) > 0
    most = tl.max(tl.where(lost, -1.0, top), 0)
    candidate = tl.where(any_lost[None, :], lost, top == most[None, :])
    return tl.min(tl.where(candidate, channel, channels), 0)


# ---- kernels -------------------------------------------------------------------------------------


@triton.jit
def map_kernel(
    x, p, out, top, unit, batch_stride, channel_stride, position_stride, channels, length,
    EXPONENT: tl.constexpr, LARGEST: tl.constexpr, TOP: tl.constexpr, AGAIN: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """out (B, L): sum over the channels of |x|^p, or their maximum.

    TOP: top (B, L) receives the largest |x|. AGAIN: of unit * x, for the items whose unit (B) is
    not one; the others are left as they are.
    """
    blocks = tl.cdiv(length, TILE)
    item = (tl.program_id(0) // blocks).to(tl.int64)
    lane = tl.arange(0, TILE)
    position = ((tl.program_id(0) % blocks) * TILE + lane).to(tl.int64)
    x += item * batch_stride
    written = length
    if AGAIN:
        factor = tl.load(unit + item)
        channels = tl.where(factor == 1.0, 0, channels)
        written = tl.where(factor == 1.0, 0, length)
    total = tl.zeros((TILE, TILE), x.dtype.element_ty)
    highest = tl.zeros((TILE, TILE), x.dtype.element_ty)
    for c0 in range(0, channels, TILE):
        channel = (c0 + lane).to(tl.int64)
        part = tile_of(x, channel, position, channel_stride, position_stride, channels, length)
        size = tl.abs(part)  # absent channels are zero, which changes neither sum nor maximum
        if AGAIN:
            size *= factor
        if LARGEST:
            total = tl.where(beats(size, total), size, total)
        else:
            total += power_of(size, p, EXPONENT)
        if TOP:
            highest = tl.where(size > highest, size, highest)
    if LARGEST:
        lost = tl.max((total != total).to(tl.int32), 0) > 0
        most = tl.max(tl.where(total == total, total, 0.0), 0)
        value = power_of(tl.where(lost, float("nan"), most), p, EXPONENT)
    else:
        value = tl.sum(total, 0)
    tl.store(out + item * length + position, value, position < written)
    if TOP:
        tl.store(top + item * length + position, tl.max(highest, 0), position < written)


@triton.jit
def gradient_kernel(
    grad, unit, x, p, gx, grad_batch, grad_position, batch_stride, channel_stride, position_stride,
    gx_batch, gx_channel, gx_position, channels, length,
    EXPONENT: tl.constexpr, LARGEST: tl.constexpr, UNIT: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """gx (B, C, L) = grad * slope of |x|^p, for the maximum at the first largest channel alone.

    UNIT: the slope of |unit x|^p by x, unit (B).
    """
    blocks = tl.cdiv(length, TILE)
    item = (tl.program_id(0) // blocks).to(tl.int64)
    lane = tl.arange(0, TILE)
    position = ((tl.program_id(0) % blocks) * TILE + lane).to(tl.int64)
    inside = position < length
    x += item * batch_stride
    gx += item * gx_batch
    cotangent = tl.load(grad + item * grad_batch + position * grad_position, inside, 0.0)
    factor = tl.load(unit + item) if UNIT else 1.0
    if LARGEST:
        chosen = first_largest(
            x, position, channel_stride, position_stride, channels, length, TILE
        ).to(tl.int64)
        place = chosen * channel_stride + position * position_stride
        best = tl.load(x + place, inside, 0.0)
        winner = pulled(cotangent, best, factor, p, EXPONENT, UNIT)
    for c0 in range(0, channels, TILE):
        channel = (c0 + lane).to(tl.int64)
        if LARGEST:
            value = tl.where(channel[:, None] == chosen[None, :], winner[None, :], 0.0)
        else:
            part = tile_of(x, channel, position, channel_stride, position_stride, channels, length)
            value = pulled(cotangent[None, :], part, factor, p, EXPONENT, UNIT)
        place_gx = gx + channel[:, None] * gx_channel + position[None, :] * gx_position
        tl.store(place_gx, value, (channel[:, None] < channels) & inside[None, :])


# ---- launchers: the same signatures as the ops in csrc/attention/attention.cpp -------------------


def attention_map(x: Tensor, p: float, largest: bool) -> Tensor:
    """x (B, C, L) -> (B, L)."""
    out = x.new_empty((x.shape[0], x.shape[2]))
    if x.numel() == 0:
        return out.zero_()
    _launch_map(x, p, largest, out)
    return out


def _launch_map(
    x: Tensor,
    p: float,
    largest: bool,
    out: Tensor,
    *,
    top: Tensor | None = None,
    unit: Tensor | None = None,
) -> None:
    batch, channels, length = x.shape
    exponent, pointer = _exponent(x, p)
    map_kernel[(batch * cdiv(length, TILE),)](
        x, pointer, out, out if top is None else top, out if unit is None else unit,
        *x.stride(), channels, length,
        EXPONENT=exponent, LARGEST=largest, TOP=top is not None, AGAIN=unit is not None, **OPTIONS,
    )  # fmt: skip


def _map_in_range(x: Tensor, p: float, largest: bool) -> tuple[Tensor, Tensor]:
    """The attention map (B, L) of unit * x, and unit (B): see csrc/attention/attention.cpp.

    Items that are out of range are done again; for the others the second launch ends at once.
    """
    out, top = (x.new_empty((x.shape[0], x.shape[2])) for _ in range(2))
    if x.numel() == 0:
        return out.zero_(), x.new_ones(x.shape[0])
    _launch_map(x, p, largest, out, top=top)
    reach, far = out.amax(1), FAR[x.dtype]
    unit = power_of_two_scale(top.amax(1))
    unit = torch.where((reach > 1 / far) & (reach < far), 1.0, unit)
    _launch_map(x, p, largest, out, unit=unit)
    return out, unit


def attention_map_backward(grad: Tensor, x: Tensor, p: float, largest: bool) -> Tensor:
    """Cotangent of x (B, C, L) for grad (B, L)."""
    return _pull_back(grad, None, x, p, largest)


def attention_loss_backward(
    pull: Tensor, unit: Tensor, student: Tensor, p: float, largest: bool
) -> Tensor:
    """Cotangent of student (B, C, L) for pull (B, L), that of the map of unit * student."""
    return _pull_back(pull, unit, student, p, largest)


def _pull_back(grad: Tensor, unit: Tensor | None, x: Tensor, p: float, largest: bool) -> Tensor:
    batch, channels, length = x.shape
    gx = empty_gradient(x)
    if x.numel():
        exponent, pointer = _exponent(x, p)
        gradient_kernel[(batch * cdiv(length, TILE),)](
            grad, grad if unit is None else unit, x, pointer, gx,
            *grad.stride(), *x.stride(), *gx.stride(), channels, length,
            EXPONENT=exponent, LARGEST=largest, UNIT=unit is not None, **OPTIONS,
        )  # fmt: skip
    return gx


def attention_loss(
    student: Tensor, teacher: Tensor, p: float, largest: bool, paper: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, its derivative (B, L), unit (B)): between the maps PyTorch serves."""
    Q_s, unit = _map_in_range(student, p, largest)
    Q_t, _ = _map_in_range(teacher, p, largest)
    return reference.loss_of_maps(Q_s, Q_t, paper), gradient.map_cotangent(Q_s, Q_t, paper), unit


def _exponent(x: Tensor, p: float) -> tuple[int, Tensor]:
    """EXPONENT, and what p points to (a number would be rounded to float32 on its way)."""
    return (int(p), x) if p in (1, 2, 3, 4) else (0, x.new_full((1,), p))
