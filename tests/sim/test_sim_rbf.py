"""svd_rbf_loss's kernels against numpy in float64, under every schedule."""

from __future__ import annotations

import numpy as np
import pytest

TOLERANCE = {"float64": 1e-12, "float32": 2e-6}
BETA = 8.0


def levels(batch, front, back, k, size, near, dtype):
    """student_front, student_back, teacher_front, teacher_back; the teacher near * size away."""
    rng = np.random.default_rng(0)
    students = [size * rng.standard_normal((batch, d, k)) for d in (front, back)]
    teachers = [s + near * size * rng.standard_normal(s.shape) for s in students]
    return [x.astype(dtype) for x in (*students, *teachers)]


def expected(sf, sb, tf, tb, scale):
    sf, sb, tf, tb = (x.astype(np.longdouble) for x in (sf, sb, tf, tb))
    a, t = sb[:, :, None] - sf[:, None], tb[:, :, None] - tf[:, None]
    k_s = np.exp(-(a**2) / BETA)
    delta = k_s - np.exp(-(t**2) / BETA)
    pull = -4 * scale / BETA * delta * k_s * a
    return scale * (delta**2).sum(), -pull.sum(1), pull.sum(2)


def run(sim, inputs, scale=0.5, gradients=True):
    sf, sb = inputs[:2]
    loss = np.full((1,), np.nan, sf.dtype)
    grads = [np.full(x.shape, np.nan, x.dtype) for x in (sf, sb)]
    bases = [x.base if x.base is not None else x for x in inputs]
    strides = [[s // x.itemsize for s in x.strides] for x in inputs]
    sim.svd_rbf(
        *(bases, strides, sf.shape[0], sf.shape[1], sb.shape[1], sf.shape[2], BETA, scale),
        *(loss, *(grads if gradients else (None, None))),
    )
    return [loss, *grads] if gradients else [loss]


def check(results, inputs, scale=0.5):
    for got, want in zip(results, expected(*inputs, scale), strict=True):
        error = np.abs(got - want).max(initial=0)
        assert error <= TOLERANCE[str(got.dtype)] * np.abs(want).max(initial=0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("size", "near"), [(0.1, 1.0), (0.1, 1e-3), (2.0, 1.0), (30.0, 1.0)])
def test_against_numpy(sim, every_schedule, dtype, size, near):
    inputs = levels(2, 37, 21, 2, size, near, dtype)
    check(every_schedule(lambda: run(sim, inputs)), inputs)


@pytest.mark.parametrize(("student", "teacher"), [(1e4, 1e4), (1e4, 0), (0, 1e4), (1e4, -1e3)])
def test_an_offset_common_to_front_and_back_costs_no_digits(sim, student, teacher):
    inputs = levels(2, 37, 21, 2, 0.5, 1.0, "float32")
    inputs = [x + np.float32(student if i < 2 else teacher) for i, x in enumerate(inputs)]
    check(run(sim, inputs), inputs)


@pytest.mark.parametrize(
    ("front", "back"), [(1, 1), (32, 8), (64, 9), (5, 300), (260, 40), (100, 5), (40, 1000)]
)
def test_sizes(sim, front, back):
    inputs = levels(1, front, back, 3, 0.3, 1.0, "float64")
    check(run(sim, inputs), inputs)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("near", [1.0, 1e-2])
def test_low_rank(sim, every_schedule, dtype, near):
    """Values as small as those of singular vectors, more of them than a block has threads."""
    inputs = levels(1, 150, 300, 2, 0.06 if dtype == "float32" else 0.02, near, dtype)
    check(every_schedule(lambda: run(sim, inputs)), inputs)


def test_low_rank_of_equal_student_and_teacher_and_of_a_shifted_one(sim):
    sf, sb, tf, tb = levels(1, 100, 120, 1, 0.06, 0.0, "float32")
    assert all((r == 0).all() for r in run(sim, (sf, sb, tf, tb)))
    shifted = sf, sb, tf + np.float32(0.125), tb + np.float32(0.125)
    loss = run(sim, shifted)[0]
    assert loss <= 1e-9 * sf.size * sb.size


def test_low_rank_leaves_items_with_nan_to_the_pairs(sim):
    for which in (0, 3):
        inputs = levels(3, 100, 120, 1, 0.06, 1.0, "float32")
        inputs[which][1, 3] = np.nan
        loss, gf, gb = run(sim, inputs)
        assert np.isnan(loss)
        assert np.isnan(gf[1]).any()
        assert np.isfinite(gf[[0, 2]]).all()
        assert np.isfinite(gb[[0, 2]]).all()


def test_free_strides(sim):
    inputs = [
        np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0)
        for x in levels(2, 12, 20, 3, 0.3, 1.0, "float64")
    ]
    check(run(sim, inputs), inputs)


def test_loss_without_gradients(sim):
    inputs = levels(2, 12, 40, 2, 0.3, 1.0, "float64")
    assert run(sim, inputs, gradients=False)[0] == run(sim, inputs)[0]


def test_empty(sim):
    for shape in [(0, 3, 4, 2), (2, 0, 4, 2), (2, 3, 0, 2), (2, 3, 4, 0)]:
        results = run(sim, levels(*shape, 0.3, 1.0, "float64"))
        assert results[0] == 0
        assert all((g == 0).all() for g in results[1:])


def test_equal_student_and_teacher(sim):
    inputs = levels(1, 12, 20, 1, 0.3, 0.0, "float32")
    assert all((r == 0).all() for r in run(sim, inputs))


def test_nan_and_huge_values(sim):
    inputs = levels(3, 12, 20, 1, 0.3, 1.0, "float32")
    inputs[0][1, 3] = np.nan
    loss, gf, gb = run(sim, inputs)
    assert np.isnan(loss)
    assert np.isnan(gf[1, 3]).all()
    assert np.isfinite(gf[[0, 2]]).all()
    assert np.isfinite(gb[[0, 2]]).all()
    assert all(np.isfinite(r).all() for r in run(sim, levels(1, 9, 7, 1, 1e20, 1.0, "float32")))
