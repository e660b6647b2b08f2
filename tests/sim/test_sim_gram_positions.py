"""The Gram loss through positions and the unit rows of nst_loss, against numpy in float64.

The kernels are called in the order of loss_launch.cuh, under every schedule; the batched products
between them are numpy's here (test_sim_gram.py has the kernel's).
"""

from __future__ import annotations

import numpy as np
import pytest
from sim_maps import ROUNDING, maps, memory


def stacked(sim, x, y, difference_first, turned):
    """[X - Y; Y] or [X; X - Y] of maps (B, C, L) as (B, 2 L, C), scaled, and what to scale by."""
    batch, channels, length = x.shape
    if turned:  # channels are neighbours in memory
        x, y = x.transpose(0, 2, 1), y.transpose(0, 2, 1)
    slow, fast = x.shape[1:]
    out = np.full((batch, 2, slow, fast) if turned else (batch, slow, 2, fast), np.nan, x.dtype)
    pitch, second = (channels, length * channels) if turned else (2 * length, length)
    sizes = (batch, slow, fast)
    tops = np.full((batch, sim.top_parts), np.nan, x.dtype)
    sim.gram_stack(memory(x), memory(y), sizes, pitch, second, difference_first, tops, out)
    if turned:
        return out.reshape(batch, 2 * length, channels), tops
    return out.reshape(batch, channels, 2 * length).transpose(0, 2, 1), tops


def through_positions(sim, x1, x2, y1, y2, turned):
    """|D|² per item, D X2 and Dᵀ X1 for D = X1 X2ᵀ - Y1 Y2ᵀ, maps (B, C, L)."""
    length = x1.shape[2]
    p, p_tops = stacked(sim, x1, y1, True, turned)
    q, q_tops = stacked(sim, x2, y2, False, turned)
    a, b = (np.ascontiguousarray(m @ m.transpose(0, 2, 1)) for m in (p, q))
    losses = np.full(len(x1), np.nan)
    sim.gram_inner(a, b, p_tops, q_tops, losses)
    first = p.transpose(0, 2, 1) @ b[:, :, :length]
    second = q.transpose(0, 2, 1) @ a[:, :, :length]
    return losses, first, second


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("c1", "c2", "length"), [(40, 33, 6), (9, 70, 17), (1, 1, 1)])
def test_through_positions(sim, every_schedule, dtype, c1, c2, length, turned):
    four = [
        maps(seed, 3, c, length, dtype=str(dtype), channels_last=turned and seed != 2)
        for seed, c in enumerate((c1, c2, c1, c2))
    ]
    losses, first, second = every_schedule(lambda: through_positions(sim, *four, turned))
    x1, x2, y1, y2 = (m.astype(np.float64) for m in four)
    d = x1 @ x2.transpose(0, 2, 1) - y1 @ y2.transpose(0, 2, 1)
    rounding = 64 * ROUNDING[str(dtype)] * length
    np.testing.assert_allclose(losses, (d**2).sum((1, 2)), rtol=rounding)
    for got, want in [(first, d @ x2), (second, d.transpose(0, 2, 1) @ x1)]:
        assert np.abs(got - want).max() <= rounding * np.abs(want).max()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("exponent", [-66, 66])
def test_sides_of_very_different_scales(sim, exponent, turned):
    """Products of one side alone leave float32; a power of two changes no bit of the result."""
    four = [maps(seed, 2, c, 6) for seed, c in enumerate((40, 33, 40, 33))]
    scale = np.float32(2.0**exponent)
    far = [m * s for m, s in zip(four, (scale, 1 / scale) * 2, strict=True)]
    plain = through_positions(sim, *four, turned)
    losses, first, second = through_positions(sim, *far, turned)
    assert (losses == plain[0]).all()
    assert (first * scale == plain[1]).all()
    assert (second / scale == plain[2]).all()


def test_equal_maps_have_exactly_no_loss(sim, dtype):
    x1, x2 = (maps(seed, 2, 30, 5, dtype=str(dtype)) for seed in range(2))
    for result in through_positions(sim, x1, x2, x1, x2, False):
        assert (result == 0).all()


def test_a_square_is_not_negative(sim):
    """Of F1 times 3 and F2 by 3 all terms cancel; a NaN is no negative number."""
    x1, x2 = (maps(seed, 8, 48, 4) for seed in range(2))
    losses, *_ = through_positions(sim, 3 * x1, x2 / np.float32(3), x1, x2, False)
    assert (losses >= 0).all()
    x1[3, 1, 2] = np.nan
    losses, *_ = through_positions(sim, 3 * x1, x2, x1, x2, False)
    assert np.isnan(losses[3])
    assert np.isfinite(np.delete(losses, 3)).all()


def unit_rows(sim, x):
    unit = np.full(x.shape, np.nan, x.dtype)
    inverse = np.full(x.shape[:2], np.nan, x.dtype)
    sim.unit_rows(memory(x), unit, inverse)
    return unit, inverse


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(("channels", "length"), [(3, 1), (5, 31), (11, 200)])
def test_unit_rows_and_back(sim, every_schedule, dtype, channels, length, channels_last):
    x = maps(1, 2, channels, length, dtype=str(dtype), channels_last=channels_last)
    pull = maps(2, 2, channels, length, dtype=str(dtype))

    def call():
        unit, inverse = unit_rows(sim, x)
        g = pull.copy()
        sim.unit_rows_back(unit, inverse, g)
        return unit, g

    unit, g = every_schedule(call)
    norm = np.sqrt((x.astype(np.float64) ** 2).sum(2, keepdims=True))
    u = x / norm
    want = (pull - u * (u * pull).sum(2, keepdims=True)) / norm
    rounding = 16 * ROUNDING[str(dtype)]
    assert np.abs(unit - u).max() <= rounding
    assert (np.abs(g - want) <= rounding * np.sqrt(length) * (np.abs(pull) + 1) / norm).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_unit_rows_of_any_scale(sim, scale):
    x = maps(3, 2, 4, 50)
    unit, _ = unit_rows(sim, x * np.float32(scale))
    np.testing.assert_allclose(unit, unit_rows(sim, x)[0], rtol=1e-5)


def test_long_rows_are_as_exact_as_short_ones(sim):
    """Squares added one by one in float lose digits with their number."""
    x = np.random.default_rng(0).random((1, 1, 60_000), np.float32)
    unit, inverse = unit_rows(sim, x)
    norm = np.sqrt((x.astype(np.float64) ** 2).sum())
    assert abs(inverse[0, 0] * norm - 1) < 2e-7
    g = x.copy()  # along the row: nothing is left but the rounding of one product
    sim.unit_rows_back(unit, inverse, g)
    assert np.abs(g * norm).max() < 1e-6


def test_rows_that_vanish_and_rows_with_nan(sim):
    x = maps(4, 2, 4, 50)
    x[0, 1], x[0, 2], x[1, 3, 7] = 0, 1e-42, np.nan
    unit, inverse = unit_rows(sim, x)
    assert (unit[0, 1] == 0).all()
    assert inverse[0, 1] == 0
    np.testing.assert_allclose(unit[0, 2], 50**-0.5, rtol=1e-6)  # the direction that it has
    assert inverse[0, 2] == np.finfo(np.float32).max
    assert np.isnan(unit[1, 3]).all()
    assert np.isnan(unit).sum() == 50
    g = np.ones_like(x)
    sim.unit_rows_back(unit, inverse, g)
    assert (g[0, 1] == 0).all()
    assert np.isfinite(np.delete(g.reshape(8, 50), 7, 0)).all()
