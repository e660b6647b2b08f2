"""The fused Gram loss, planned as on a GPU, against numpy in float64, under every schedule."""

from __future__ import annotations

import numpy as np
import pytest
from sim_maps import ROUNDING, maps, memory

SCALE_S, SCALE_T, COEFFICIENT = 0.3, 0.2, 0.5


class Loss:
    """Loss and D (or its pull) of maps x1 (B, C1, L), x2 (B, C2, L), y1, y2; x2, y2 may be None."""

    def __init__(self, sim, every_schedule):
        self.sim, self.every_schedule = sim, every_schedule

    def __call__(
        self, x1, x2, y1, y2, *, columns=False, keep=True, processors=1, scales=None,
        coefficient=COEFFICIENT,
    ):  # fmt: skip
        symmetric = x2 is None
        x2, y2 = (x1, y1) if symmetric else (x2, y2)

        def call():
            d = np.full((x1.shape[0], x1.shape[1], x2.shape[1]), np.nan, x1.dtype)
            loss = np.full(1, np.nan, x1.dtype)
            self.splits = self.sim.gram_loss(
                *(memory(m) for m in (x1, x2, y1, y2)),
                *(x1.shape[2], y1.shape[2], d, loss),
                (*(scales or (SCALE_S, SCALE_T)), coefficient),
                *((columns, keep, symmetric), processors),
            )
            return loss, d

        return self.every_schedule(call)


@pytest.fixture
def gram_loss(sim, every_schedule):
    return Loss(sim, every_schedule)


def exact(x1, x2, y1, y2):
    """D and the size of its sums."""
    x2, y2 = (x1, y1) if x2 is None else (x2, y2)
    x1, x2, y1, y2 = (m.astype(np.float64) for m in (x1, x2, y1, y2))
    student, teacher = x1 @ x2.transpose(0, 2, 1), y1 @ y2.transpose(0, 2, 1)
    size = SCALE_S * np.abs(x1) @ np.abs(x2).transpose(0, 2, 1)
    size += SCALE_T * np.abs(y1) @ np.abs(y2).transpose(0, 2, 1)
    return SCALE_S * student - SCALE_T * teacher, size


def norms(d):
    return np.sqrt((d**2).sum(1, keepdims=True))


def check(gram_loss, four, *, columns=False, **options):
    """Loss and D, or its pull, within what the rounding of D's terms may do to them."""
    loss, d = gram_loss(*four, columns=columns, **options)
    exact_d, size = exact(*four)
    rounding = ROUNDING[str(d.dtype)]
    error = 16 * rounding * size  # of an entry of D
    if columns:
        norm = np.where(norms(exact_d) > 0, norms(exact_d), 1)
        want, want_d = norms(exact_d).sum(), COEFFICIENT * exact_d / norm
        loss_error, error = norms(error).sum(), 4 * COEFFICIENT * norms(error) / norm
    else:
        want, want_d = (exact_d**2).sum(), exact_d
        loss_error = 2 * np.sqrt(want * (error**2).sum()) + (error**2).sum()
    loss_error += 8 * rounding * want
    assert abs(loss[0] - COEFFICIENT * want) <= COEFFICIENT * loss_error
    assert (np.abs(d - want_d) <= error).all()
    alone, untouched = gram_loss(*four, columns=columns, keep=False, **options)
    assert np.array_equal(alone, loss)
    assert np.isnan(untouched).all()


def four_maps(dtype, c1, c2, length, teacher=None, batch=2, channels_last=False):
    sizes = [(c1, length), (c2, length), (c1, teacher or length), (c2, teacher or length)]
    return [
        maps(seed, batch, c, n, dtype=dtype, channels_last=channels_last and seed in (1, 4))
        for seed, (c, n) in enumerate(sizes)
    ]


SIZES = [(5, 16, 130, 70), (33, 20, 37, 51), (70, 66, 21, 21), (1, 1, 1, 1), (3, 90, 2, 5)]


@pytest.mark.parametrize("columns", [False, True], ids=["squares", "columns"])
@pytest.mark.parametrize(("c1", "c2", "length", "teacher"), SIZES)
def test_loss(gram_loss, dtype, c1, c2, length, teacher, columns):
    four = four_maps(str(dtype), c1, c2, length, teacher, channels_last=length > 2)
    check(gram_loss, four, columns=columns)
    assert gram_loss.splits == 1


@pytest.mark.parametrize("columns", [False, True], ids=["squares", "columns"])
@pytest.mark.parametrize(
    ("c1", "c2", "length", "teacher"), [(16, 13, 700, 500), (24, 40, 300, 9), (65, 70, 150, 333)]
)
def test_split_depth(gram_loss, dtype, c1, c2, length, teacher, columns):
    four = four_maps(str(dtype), c1, c2, length, teacher, batch=1, channels_last=True)
    check(gram_loss, four, columns=columns, processors=40)
    assert gram_loss.splits > 2


@pytest.mark.parametrize("processors", [1, 40])
@pytest.mark.parametrize("columns", [False, True], ids=["squares", "columns"])
@pytest.mark.parametrize(("channels", "length"), [(13, 300), (40, 170), (130, 66)])
def test_symmetric(gram_loss, dtype, channels, length, columns, processors):
    x, _, y, _ = four_maps(str(dtype), channels, 1, length, batch=1)
    check(gram_loss, (x, None, y, None), columns=columns, processors=processors)
    _, d = gram_loss(x, None, y, None, processors=processors)
    assert np.array_equal(d, d.transpose(0, 2, 1))


@pytest.mark.parametrize("processors", [1, 40])
@pytest.mark.parametrize("columns", [False, True], ids=["squares", "columns"])
def test_equal_maps_have_exactly_no_loss(gram_loss, dtype, columns, processors):
    """And no pull: the rounding of two equal Gram matrices is the same."""
    x1, x2, *_ = four_maps(str(dtype), 20, 36, 300)
    loss, d = gram_loss(x1, x2, x1, x2, columns=columns, processors=processors, scales=(0.3, 0.3))
    assert loss == 0
    assert (d == 0).all()


@pytest.mark.parametrize("processors", [1, 40])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_norms_of_columns_of_any_scale(gram_loss, processors, scale):
    """Squares of these leave float32; columns of zeros and of one entry are among them."""
    x1, x2, y1, y2 = four_maps("float32", 40, 50, 200)
    x2[0, 3], y2[0, 3] = 0, 0
    x2[1, 49], y2[1, 49] = 0, 0
    with np.errstate(under="ignore"):
        four = (x1, x2 * np.float32(scale), y1, y2 * np.float32(scale))
    check(gram_loss, four, columns=True, processors=processors)
    _, pull = gram_loss(*four, columns=True, processors=processors)
    assert (pull[0, :, 3] == 0).all()
    assert (pull[1, :, 49] == 0).all()


@pytest.mark.parametrize("processors", [1, 40])
def test_squares_beyond_the_range_of_float(gram_loss, processors):
    """Entries of D whose squares overflow float32; times the coefficient they do not."""
    four = four_maps("float32", 5, 6, 200)
    four[0], four[2] = (m * np.float32(3e18) for m in (four[0], four[2]))
    loss, _ = gram_loss(*four, processors=processors, coefficient=1e-6)
    want = 1e-6 * (exact(*four)[0] ** 2).sum()
    assert want * 1e6 > np.finfo(np.float32).max > want
    np.testing.assert_allclose(loss[0], want, rtol=1e-5)


def test_a_block_adds_up_a_bounded_depth(gram_loss):
    """A sum in float loses digits with its length: long maps are split, however full the GPU."""
    x1, x2, y1, y2 = (np.abs(m) for m in four_maps("float32", 2, 3, 20_000, batch=1))
    _, d = gram_loss(x1, x2, y1, y2)
    assert gram_loss.splits >= 10
    want, size = exact(x1, x2, y1, y2)
    assert np.abs(d - want).max() < 2e-7 * size.max()


@pytest.mark.parametrize("columns", [False, True], ids=["squares", "columns"])
def test_zero_maps(gram_loss, dtype, columns):
    zeros = [np.zeros_like(m) for m in four_maps(str(dtype), 7, 34, 20)]
    loss, d = gram_loss(*zeros, columns=columns)
    assert loss == 0
    assert (d == 0).all()


@pytest.mark.parametrize("columns", [False, True], ids=["squares", "columns"])
@pytest.mark.parametrize("gone", ["student", "teacher", "both"])
def test_no_positions(gram_loss, dtype, columns, gone):
    x1, x2, y1, y2 = four_maps(str(dtype), 5, 6, 70)
    if gone != "teacher":
        x1, x2 = x1[:, :, :0], x2[:, :, :0]
    if gone != "student":
        y1, y2 = y1[:, :, :0], y2[:, :, :0]
    check(gram_loss, (x1, x2, y1, y2), columns=columns, processors=40)


@pytest.mark.parametrize("processors", [1, 40])
def test_nan_stays_in_its_item(gram_loss, processors):
    four = four_maps("float32", 17, 18, 300, batch=3)
    four[0][1, 4, 7] = np.nan
    loss, d = gram_loss(*four, processors=processors)
    assert np.isnan(loss)
    assert np.isnan(d[1, 4]).all()
    assert np.isnan(d).sum() == 18
    _, pull = gram_loss(*four, columns=True, processors=processors)
    assert np.isnan(pull[1]).all()
    assert np.isfinite(pull[[0, 2]]).all()


def test_many_blocks_are_added_in_order(gram_loss):
    """More partial sums than the last block has threads."""
    check(gram_loss, four_maps("float32", 2, 3, 1, batch=300))
