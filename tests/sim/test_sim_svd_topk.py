"""The top-k SVD kernels and their gradient against numpy in float64, under every schedule.

The gradient is compared with first-order perturbation theory over the whole spectrum: every pair
(i, j) of singular vectors, computed or not, contributes; the kernel sees only the k triples.
"""

from __future__ import annotations

import numpy as np
import pytest
from sim_matrices import KINDS, SPLIT_KINDS, by_columns, nearly_split, normal, special
from topk_solver import (
    Solver,
    assert_same_bits,
    assert_triples,
    perturbation_gradient,
    with_values,
)

GRAM, DENSE = 1, 2


def routes(saved):
    """How each matrix was solved: csrc/svd/shared/saved.h."""
    return saved.reshape(len(saved), -1)[:, 0].tolist()


SHAPES = [((1, 1), 1), ((2, 2), 2), ((1, 5), 1), ((9, 9), 4), ((16, 16), 16), ((49, 60), 4)]
SHAPES += [((60, 33), 5), ((300, 12), 4), ((12, 300), 3)]


@pytest.mark.parametrize(("shape", "k"), SHAPES, ids=str)
def test_random(solver, dtype, shape, k):
    A = normal((1, *shape), dtype)
    assert_triples(A, *solver.forward(A, k)[:3])


@pytest.mark.parametrize("u", [True, False], ids=["with U", "without U"])
@pytest.mark.parametrize("k", [1, 4, 10])
@pytest.mark.parametrize("shape", [(18, 10), (10, 18), (10, 10)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_special(solver, dtype, kind, shape, k, u):
    A = special(kind, *shape, dtype)
    assert_triples(A, *solver.forward(A, k, u=u)[:3])


@pytest.mark.parametrize("shape", [(70, 33), (20, 90)], ids=str)
@pytest.mark.parametrize("kind", ["ill-conditioned", "graded"])
def test_long_tail(solver, dtype, kind, shape):
    """More than a tile of rows, more than a lane's row of columns, a k of 16."""
    A = special(kind, *shape, dtype)
    state = solver.forward(A, 16)
    assert routes(state[3]) == [DENSE]
    assert_triples(A, *state[:3])


def test_route(solver, dtype):
    """The Gram matrix serves down to s_k = s_1 / 48, the block SVD below."""
    values = np.linspace(2, 1, 12)
    tail = 0.9 ** (np.arange(12) - 3.0)  # equal values across k would take the second way too
    smaller = [np.where(np.arange(12) < 3, values, 2 / ratio * tail) for ratio in (45, 51, 1e6)]
    A = np.stack([with_values(v, 30, 12, dtype) for v in (values, *smaller)])
    state = solver.forward(A, 4)
    assert routes(state[3]) == [GRAM, GRAM, DENSE, DENSE]
    assert_triples(A, *state[:3])
    assert routes(solver.forward(A, 3)[3]) == [GRAM] * 4


@pytest.mark.parametrize("shape", [(18, 10), (10, 18)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_special_is_finite(solver, dtype, kind, shape):
    A = special(kind, *shape, dtype)
    state = solver.forward(A, 4)
    cotangents = [normal(x.shape, dtype, seed) for seed, x in enumerate(state[:3])]
    for lorentz in (False, True):
        assert np.isfinite(solver.backward(cotangents, A, state, lorentz=lorentz)).all()
        zeros = [np.zeros_like(g) for g in cotangents]
        assert (solver.backward(zeros, A, state, lorentz=lorentz) == 0).all()


@pytest.mark.parametrize("wanted", ["U", "V", "S", "USV", "SV without U"])
@pytest.mark.parametrize(("shape", "k"), [((3, 7), 2), ((16, 6), 6), ((40, 9), 4), ((12, 33), 5)])
def test_gradient(solver, dtype, shape, k, wanted):
    A = normal((1, *shape), dtype, 5)
    state = solver.forward(A, k, u="without" not in wanted)
    shapes = {"U": (1, shape[0], k), "S": (1, k), "V": (1, k, shape[1])}
    names = wanted.split()[0]
    cotangents = [normal(s, dtype, 6) if name in names else None for name, s in shapes.items()]
    gA = solver.backward(cotangents, A, state)[0]
    arguments = [None if g is None else g[0].astype(np.float64) for g in cotangents]
    expected = perturbation_gradient(A[0], state[1][0], state[2][0], *arguments)
    tolerance = 1e-3 if dtype.itemsize == 4 else 1e-10
    np.testing.assert_allclose(gA, expected, rtol=0, atol=tolerance * np.abs(expected).max())


COUPLINGS = [1e-1, 1e-4, 1e-6, 1e-8, 1e-12, 1e-15, 1e-20, 1e-30, 1e-60, 1e-100, 1e-150, 1e-200]


def split_batch(m, n, dtype, couplings):
    """Every kind and coupling with values of powers of two and with random ones, well apart."""
    p, rng = min(m, n), np.random.default_rng(11)
    random = 1 - (np.arange(p) + rng.random(p) / 2) / (1.5 * p)
    batch = [
        nearly_split(kind, values, coupling, m, n, seed)
        for seed, kind in enumerate(SPLIT_KINDS)
        for values in (2.0 ** -np.arange(p), random)
        for coupling in couplings
    ]
    return np.stack(batch).astype(dtype)


def check_split(solver, A, k):
    """Triples as ever; the gradient to rounding over the smallest gap of the squares."""
    p, eps = min(A.shape[1:]), np.finfo(A.dtype).eps
    state = solver.forward(A, k)
    assert_triples(A, *state[:3])
    cotangents = [normal(x.shape, A.dtype, seed) for seed, x in enumerate(state[:3])]
    gA = solver.backward(cotangents, A, state)
    for i in range(len(A)):
        own = [g[i].astype(np.float64) for g in cotangents]
        expected = perturbation_gradient(A[i], state[1][i], state[2][i], *own)
        squares = np.linalg.svd(A[i].astype(np.float64), compute_uv=False) ** 2
        gap = -np.diff(squares)[: min(k, p - 1)].max() / squares[0]
        error = np.linalg.norm(gA[i] - expected) / np.linalg.norm(expected)
        yardstick = 200 * np.finfo(np.float64).eps  # LAPACK rounds too
        assert error <= ((30 + 4 * p) * eps + yardstick) / gap, (i, error, gap)


@pytest.mark.parametrize(("shape", "k"), [((5, 5), 1), ((9, 9), 3), ((8, 20), 3)], ids=str)
def test_nearly_split_matrices(solver, dtype, shape, k):
    """What falls apart but for tiny couplings: the solves are singular and rows trade places."""
    check_split(solver, split_batch(*shape, dtype, [1e-4, 1e-15, 1e-150]), k)


@pytest.mark.slow
@pytest.mark.parametrize("k", range(1, 17))
def test_nearly_split_matrices_everywhere(sim, dtype, k):
    solver = Solver(sim, lambda call: [*result] if isinstance(result := call(), list) else [result])
    check_split(solver, split_batch(2 * k + 1, 2 * k + 3, dtype, COUPLINGS), k)


def matrix_with_tail(kind, m, n, dtype):
    """The first five values apart, the fourth below s_1 / 48."""
    if kind == "ill-conditioned":
        return special(kind, m, n, dtype)
    return normal((1, m, n), dtype, 3) * (10.0 ** (-0.75 * np.arange(n))).astype(dtype)


@pytest.mark.parametrize("wanted", ["USV", "V", "SV without U"])
@pytest.mark.parametrize("shape", [(40, 9), (9, 40), (11, 11)], ids=str)
@pytest.mark.parametrize("kind", ["ill-conditioned", "graded"])
def test_gradient_of_a_tail(solver, dtype, kind, shape, wanted):
    """Exact to what the worst pair of vectors is: rounding over the smallest gap.

    The bias of "lorentz", (tau over the gap)², is far below that.
    """
    k, A = 4, matrix_with_tail(kind, *shape, dtype)
    state = solver.forward(A, k, u="without" not in wanted)
    assert routes(state[3]) == [DENSE]
    shapes = {"U": (1, shape[0], k), "S": (1, k), "V": (1, k, shape[1])}
    names = wanted.split()[0]
    cotangents = [normal(s, dtype, 6) if name in names else None for name, s in shapes.items()]
    arguments = [None if g is None else g[0].astype(np.float64) for g in cotangents]
    expected = perturbation_gradient(A[0], state[1][0], state[2][0], *arguments)
    values = np.linalg.svd(A[0].astype(np.float64), compute_uv=False)
    condition = values[0] / np.abs(np.diff(values[: k + 1])).min()
    tolerance = 20 * min(shape) * np.finfo(dtype).eps * condition
    for lorentz in (False, True):
        gA = solver.backward(cotangents, A, state, lorentz=lorentz)[0]
        np.testing.assert_allclose(gA, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(20, 8), (8, 20)], ids=str)
def test_first_triple_above_a_tail_of_rounding(solver, dtype, shape):
    """s_2 is zero to rounding: the gradient of the first triple has a condition of one."""
    A = special("graded", *shape, dtype) if shape[0] > 8 else special("ones", *shape, dtype)
    state = solver.forward(A, 4)
    assert routes(state[3]) == [DENSE]
    cotangents = [normal(x.shape, dtype, 6) for x in state[:3]]
    for g, axis in zip(cotangents, (2, 1, 1), strict=True):
        np.moveaxis(g, axis, 0)[1:] = 0
    gA = solver.backward(cotangents, A, state)[0]
    first = [g[0].astype(np.float64) for g in cotangents]
    first = [first[0][:, :1], first[1][:1], first[2][:1]]
    expected = perturbation_gradient(A[0], state[1][0, :1], state[2][0, :1], *first)
    tolerance = 20 * min(shape) * np.finfo(dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(gA, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", [(20, 8), (8, 20)], ids=str)
def test_routes_do_not_meet(solver, dtype, shape):
    """A matrix of one route among those of the other: every matrix has the bits it has alone."""
    k, kinds = 4, ["ill-conditioned", "ones", "rank 2"]
    plain = list(normal((3, *shape), dtype))
    A = np.stack([plain[0], *(special(kind, *shape, dtype)[0] for kind in kinds), *plain[1:]])
    state = solver.forward(A, k)
    assert routes(state[3]) == [GRAM, DENSE, DENSE, DENSE, GRAM, GRAM]
    assert_triples(A, *state[:3])
    cotangents = [normal(x.shape, dtype) for x in state[:3]]
    gradient = solver.backward(cotangents, A, state)
    for i in range(len(A)):
        alone = solver.forward(A[i : i + 1], k)
        for one, whole in zip(alone, state, strict=True):
            assert np.array_equal(one[0], whole[i])
        own = [g[i : i + 1] for g in cotangents]
        assert np.array_equal(solver.backward(own, A[i : i + 1], alone)[0], gradient[i])


@pytest.mark.parametrize("shape", [(20, 8), (8, 20)], ids=str)
def test_bad_matrix_stays_alone(solver, dtype, shape):
    A = normal((2, *shape), dtype)
    clean = solver.forward(A, 3)
    cotangents = [normal(x.shape, dtype) for x in clean[:3]]
    gradient = solver.backward(cotangents, A, clean)
    A[1, 2, 3] = np.nan
    state = solver.forward(A, 3)
    for before, after in zip(clean, state, strict=True):
        assert np.array_equal(before[0], after[0])
        assert np.isnan(after[1]).all()
    bad = solver.backward(cotangents, A, state)
    assert np.array_equal(bad[0], gradient[0])
    assert np.isnan(bad[1]).all()


@pytest.mark.parametrize("route", [GRAM, DENSE], ids=["gram", "dense"])
def test_small_shared_memory(solver, route):
    """Gram matrix in `saved`, factors or W in the workspace: other places, close results."""
    A, k = normal((2, 50, 40), np.dtype("float64")), 4
    if route == DENSE:
        A *= np.logspace(0, -40, 40)
    state, few = solver.forward(A, k), solver.forward(A, k, shared=16 << 10)
    assert routes(state[3]) == routes(few[3]) == [route] * 2
    for here, there in zip(state[:3], few[:3], strict=True):
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-12)
    cotangents = [normal(x.shape, A.dtype) for x in state[:3]]
    here = solver.backward(cotangents, A, state)
    there = solver.backward(cotangents, A, few, shared=32 << 10)
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-10 * max(1, np.abs(here).max()))


def compare_orders(solver, A, k, *, u=True, wanted="USV", **options):
    """Forward and gradient of A by columns: the bits of A by rows, gA as A lies. The routes."""
    turned = by_columns(A)
    expected, found = (solver.forward(x, k, u=u, **options) for x in (A, turned))
    assert_same_bits(found, expected)
    pairs = zip("USV", expected[:3], strict=True)
    cotangents = [normal(x.shape, A.dtype, 4) if name in wanted else None for name, x in pairs]
    gA = solver.backward(cotangents, A, expected, **options)
    turned_gA = solver.backward(cotangents, turned, found, **options)
    assert turned_gA.strides[1:] == turned.strides[1:]
    assert_same_bits([turned_gA], [gA])
    return routes(expected[3])


ORDERED = [((40, 9), 1), ((40, 9), 4), ((9, 40), 4), ((9, 40), 7), ((12, 12), 1), ((12, 12), 12)]
ORDERED += [((300, 17), 4), ((17, 300), 4), ((70, 33), 5), ((33, 70), 16), ((1, 5), 1), ((5, 1), 1)]


@pytest.mark.parametrize("wanted", ["USV", "SV without U"])
@pytest.mark.parametrize(("shape", "k"), ORDERED, ids=str)
def test_order(solver, dtype, shape, k, wanted):
    """A matrix by rows and the same one by columns: one result, on either route."""
    A = np.concatenate([normal((1, *shape), dtype), matrix_with_tail("graded", *shape, dtype)])
    names, u = wanted.split()[0], "without" not in wanted
    taken = compare_orders(solver, A, k, u=u, wanted=names)
    if 4 <= k < min(shape) / 2:
        assert taken == [GRAM, DENSE]


def test_order_with_small_shared_memory(solver):
    dtype = np.dtype("float32")
    A = np.concatenate([normal((1, 70, 40), dtype), special("ones", 70, 40, dtype)])
    assert compare_orders(solver, A, 4, shared=20 << 10) == [GRAM, DENSE]


@pytest.mark.parametrize("shape", [(26, 10), (10, 26), (10, 10)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_order_of_special(solver, dtype, kind, shape):
    compare_orders(solver, special(kind, *shape, dtype), 4)


@pytest.mark.parametrize("shape", [(49, 512), (300, 36), (40, 40)], ids=str)
def test_rank_one(solver, dtype, shape):
    """All rows are rounded alike: what is left of the other long vectors stays parallel to the
    first one however often it is taken off."""
    for A in (np.ones((1, *shape), dtype), np.full((1, *shape), 1 / 3, dtype)):
        assert_triples(A, *solver.forward(A, 16)[:3])


def test_many_equal_values(quick_solver, dtype):
    """Rotations among them leave a few eps of cosine; none of their vectors is rounding."""
    values = np.array([3.0, 3.0, 2.0, 2.0, 1.0])[np.arange(128) * 5 // 128]
    A = with_values(values, 128, 128, dtype)[None]
    assert_triples(A, *quick_solver.forward(A, 16)[:3])
