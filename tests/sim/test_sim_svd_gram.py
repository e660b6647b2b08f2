"""The Gram route of the full SVD (svd_gram_kernel): its accuracy up to the bound of gram_rule.h,
that it refuses what lies beyond, and that the QR route takes exactly what was refused.

Gates as in test_sim_svd.py, whose svd() launches both kernels.
"""

from __future__ import annotations

import numpy as np
import pytest
from sim_matrices import FULL_SHARED, KINDS, assert_canonical, by_columns, normal, special
from test_sim_svd import Solver, assert_svd

SHAPES = [(33, 1), (40, 3), (100, 5), (64, 16), (300, 16), (48, 32), (250, 31), (7, 60), (20, 130)]
OF_SEVERAL = [s for s in SHAPES if min(s) > 1]
SPECTRA = ["geometric", "linear", "one small", "one large", "two clusters"]


@pytest.fixture
def solver(sim, every_schedule):
    return Solver(sim, every_schedule)


@pytest.fixture
def quick(sim):
    sim.set_schedule("forward", 1)
    return Solver(sim, lambda call: call())


def burden_of(values):
    """The sum of l_1 / l_i over 16 p, or l_1 / l_p over 4 p: the rule wants both at most 1."""
    p, ratios = len(values), (values[0] / values) ** 2
    return max(ratios.sum() / (16 * p), ratios.max() / (4 * p))


def values_of(kind, p, burden, *, vectors=True):
    """Singular values of this burden; for the bound of values alone: an l_1 / l_p of `burden`
    16 p^2."""

    def spectrum(squared_condition):
        least = squared_condition**-0.5
        match kind:
            case "geometric":
                return np.logspace(0, np.log10(least), p)
            case "linear":
                return np.linspace(1, least, p)
            case "one small":
                return np.r_[np.ones(p - 1), least]
            case "one large":
                return np.r_[1, np.full(p - 1, least)]
            case "two clusters":
                return np.where(np.arange(p) < (p + 1) // 2, 1, least)
        raise ValueError(kind)

    low, high = 1.0, 64.0 * p * p
    while vectors and high / low > 1 + 1e-9:
        middle = np.sqrt(low * high)
        if burden_of(spectrum(middle)) < burden:
            low = middle
        else:
            high = middle
    return spectrum(low if vectors else burden * 16 * p * p)


def planted(shape, values, dtype, seed=0):
    """One matrix (1, m, n) with these singular values."""
    rng, p = np.random.default_rng(seed), min(shape)
    left, right = (np.linalg.qr(rng.standard_normal((side, p)))[0] for side in shape)
    return ((left * values) @ right.T).astype(dtype)[None]


def refused(sim, A, *, vectors=True, shared=FULL_SHARED):
    """Per matrix: has the Gram route refused it; all of its results are still NaN then."""
    count, m, n = A.shape
    p = min(m, n)
    U, S = np.full((count, m, p), np.nan, A.dtype), np.full((count, p), np.nan, A.dtype)
    Vh = np.full((count, p, n), np.nan, A.dtype)
    sim.set_schedule("forward", 1)
    assert sim.svd_gram(A, U if vectors else None, S, Vh if vectors else None, True, shared)
    marked = S[:, 0] == -1
    assert np.isnan(U[marked]).all()
    assert np.isnan(Vh[marked]).all()
    assert not np.isnan(S[~marked]).any()
    return marked.tolist()


@pytest.mark.parametrize("shape", OF_SEVERAL, ids=str)
@pytest.mark.parametrize("kind", SPECTRA)
def test_accuracy_at_the_bound(sim, quick, dtype, shape, kind):
    p = min(shape)
    A = planted(shape, values_of(kind, p, 0.98), dtype)
    assert refused(sim, A) == [False]
    U, S, Vh = quick.svd(A)
    assert_svd(A, U, S, Vh)
    assert_canonical(Vh)
    for Q in (U[0].astype(np.float64), Vh[0].T.astype(np.float64)):  # all entries together
        assert np.linalg.norm(Q.T @ Q - np.eye(p)) <= 20 * p * np.finfo(dtype).eps


@pytest.mark.parametrize("shape", OF_SEVERAL, ids=str)
@pytest.mark.parametrize("kind", SPECTRA)
def test_beyond_the_bound_qr_decomposes(sim, quick, dtype, shape, kind):
    p = min(shape)
    A = planted(shape, values_of(kind, p, 1.02), dtype)
    assert refused(sim, A) == [True]
    for found, by_qr in zip(quick.svd(A), quick.svd(A, block=True), strict=True):
        assert np.array_equal(found, by_qr)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_values_alone_bear_a_larger_condition(sim, quick, dtype, factor):
    p = 12
    A = planted((80, p), values_of("geometric", p, factor, vectors=False), dtype)
    assert refused(sim, A, vectors=False) == [factor > 1]
    (S,) = quick.svd(A, u=False, v=False)
    expected = np.linalg.svd(A[0].astype(np.float64), compute_uv=False)
    assert (np.abs(S[0] - expected) <= 20 * p * np.finfo(dtype).eps * expected[0]).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_schedule(solver, dtype, shape):
    A = normal((2, *shape), dtype)
    U, S, Vh = solver.svd(A)
    assert_svd(A, U, S, Vh)
    assert_canonical(Vh)
    for a, b in zip(solver.svd(by_columns(A)), (U, S, Vh), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("shape", [(70, 24), (16, 90), (200, 9)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_special(quick, dtype, kind, shape):
    A = special(kind, *shape, dtype)
    U, S, Vh = quick.svd(A)
    assert_svd(A, U, S, Vh)
    assert_canonical(Vh)


def assert_svd_of_denormals(A, least, U, S, Vh):
    """The values have few digits of their own: exact to one of the smallest numbers."""
    A, S = (np.longdouble(x) / np.longdouble(least) for x in (A, S))
    expected = np.linalg.svd(A[0].astype(np.float64), compute_uv=False)
    assert (np.abs(S[0] - expected) <= 1).all()
    values = np.diagonal(np.swapaxes(U, 1, 2) @ A @ np.swapaxes(Vh, 1, 2), axis1=1, axis2=2)
    assert_svd(A.astype(U.dtype), U, values.astype(U.dtype), Vh)


@pytest.mark.parametrize("shape", [(50, 6), (6, 50)], ids=str)
def test_a_batch_of_all_kinds(sim, solver, dtype, shape):
    """Each matrix gets the bits that it gets alone, whoever its neighbours and their routes are."""
    least = np.finfo(dtype).smallest_subnormal
    random = normal((1, *shape), dtype)
    bad, infinite = random.copy(), random.copy()
    bad[0, -1, 2], infinite[0, 0, 0] = np.nan, -np.inf
    denormal = (np.round(random * 1000) * least).astype(dtype)
    kinds = [random, special("rank 2", *shape, dtype), bad, special("identity", *shape, dtype)]
    kinds += [special(name, *shape, dtype) for name in ("large", "zero", "tiny", "graded")]
    kinds += [denormal, infinite, special("repeated", *shape, dtype), 3 * random]
    expected = [False, True, True, False, True, True, True, True, True, True, False, False]
    A = np.concatenate(kinds)
    assert refused(sim, A) == expected
    results = solver.svd(A)
    for i, alone in enumerate(kinds):
        for found, one in zip(results, solver.svd(alone), strict=True):
            assert np.array_equal(found[i], one[0], equal_nan=True)
            assert np.isnan(found[i]).all() == (i in (2, 9))
        mine = [x[i : i + 1] for x in results]
        if i == 8:
            assert_svd_of_denormals(alone, least, *mine)
        elif i not in (2, 9):
            assert_svd(alone, *mine)


@pytest.mark.parametrize("shape", [(40, 33), (40, 30), (32, 32), (20, 16)], ids=str)
def test_where_it_is_not_taken(sim, dtype, shape):
    """A large small side, nearly square, or small enough for registers (double: up to 16)."""
    if dtype == np.float64 and shape == (32, 32):
        shape = (16, 16)
    A = normal((1, *shape), dtype)
    assert not sim.svd_gram(A, None, np.zeros((1, min(shape)), dtype), None, True, FULL_SHARED)


def test_without_its_shared_memory_qr_decomposes(sim, quick, dtype):
    A, shared = normal((1, 60, 20), dtype), 40 << 10
    assert refused(sim, A) == [False]
    assert not sim.svd_gram(A, None, np.zeros((1, 20), dtype), None, True, shared)
    assert_svd(A, *quick.svd(A, shared=shared))


def test_a_very_long_side_of_positive_numbers(quick, dtype):
    """Maps behind a ReLU: sums of one sign, whose rounding does not cancel."""
    A = np.abs(normal((1, 40000, 4), dtype)) + np.eye(40000, 4, dtype=dtype) * 100
    assert_svd(A, *quick.svd(A))


@pytest.mark.parametrize("shape", [(50, 7), (7, 50)], ids=str)
def test_parts_that_are_not_asked_for(solver, dtype, shape):
    A = normal((2, *shape), dtype)
    _, S, Vh = solver.svd(A)
    S_without_u, Vh_without_u = solver.svd(A, u=False)
    assert np.array_equal(S, S_without_u)
    assert np.array_equal(Vh, Vh_without_u)
    (values,) = solver.svd(A, u=False, v=False)
    assert np.array_equal(values, S)  # random ones pass both bounds


@pytest.mark.parametrize("shape", [(50, 7), (7, 50)], ids=str)
def test_signs_as_they_come(solver, dtype, shape):
    A = normal((2, *shape), dtype)
    assert_svd(A, *solver.svd(A, canonical=False))
