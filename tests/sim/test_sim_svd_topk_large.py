"""The top-k SVD kernels for a small side above 128, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from sim_matrices import KINDS, assert_canonical, by_columns, normal, special
from topk_solver import (
    assert_same_bits,
    assert_triples,
    perturbation_gradient,
    with_values,
)

# of `saved`: csrc/svd/topk/gpu/large_context.cuh
SCALE, CROWDED, EXHAUSTED, KRYLOV = 0, 2, 3, 5
P = 130


def network(p):
    """Values as those of maps of a trained network."""
    return np.r_[8, 4, 3, 2.5, 2, 1.7, 1.4, 1.2, 1.05, np.linspace(0.7, 0.1, p - 9)]


def spectrum(kind):
    """P values, descending."""
    return {
        "network": network(P),
        "flat": np.linspace(2, 1, P),
        "clustered": np.r_[2, 1.5, 1.2, 1.2 - 1e-3, 1.1, 1.1 - 1e-4, np.linspace(0.8, 0.4, P - 6)],
        "plateau": np.r_[np.full(20, 2.0), np.linspace(1.9, 1, P - 20)],
        "five equal": np.r_[np.full(5, 2.0), np.linspace(0.7, 0.1, P - 5)],  # one more than k
        "below": np.r_[2, 1.8, 1.7, 1e-3 * 0.9 ** np.arange(P - 3)],  # lost in a Gram matrix
        "level": np.r_[2, 1.8, 1.7, np.full(P - 3, 1e-5)],  # equal, of a later round
        "geometric": 0.5 ** np.arange(P),
        "rank 4": np.r_[2, 1.8, 1e-3, 1e-4, np.zeros(P - 4)],
    }[kind]


def matrices(kind, shape, dtype, scale=1.0):
    return (with_values(spectrum(kind), *shape, np.dtype("float64")) * scale).astype(dtype)[None]


def cotangents_for(state, wanted="USV"):
    pairs = zip("USV", state[:3], strict=True)
    return [
        normal(x.shape, x.dtype, 6) if name in wanted and x is not None else None
        for name, x in pairs
    ]


def check_gradient(solver, A, k, *, scale=1.0, wanted="USV", u=True, lorentz=False):
    """To rounding over the smallest gap that the k vectors meet."""
    state = solver.forward(A, k, u=u)
    assert_triples(A, *state[:3])
    assert_canonical(state[2])
    cotangents = cotangents_for(state, wanted)
    gA = solver.backward(cotangents, A, state, lorentz=lorentz)[0].astype(np.float64)
    exact = A[0].astype(np.float64) / scale
    own = [None if g is None else g[0].astype(np.float64) for g in cotangents]
    if own[1] is not None:
        own[1] = own[1] * scale
    expected = perturbation_gradient(exact, state[1][0] / scale, state[2][0], *own)
    values = np.linalg.svd(exact, compute_uv=False)
    condition = values[0] / np.abs(np.diff(values[: k + 1])).min()
    error = np.linalg.norm(gA * scale - expected) / np.linalg.norm(expected)
    assert error <= P * np.finfo(A.dtype).eps * condition, (error, condition)
    return state


@pytest.mark.parametrize(
    ("shape", "k"),
    # 157² numbers leave some lanes of a warp without one in the last round of a loop over them
    [
        ((129, 129), 1),
        ((160, 131), 4),
        ((157, 158), 2),
        ((129, 140), 8),
        ((131, 160), 9),
        ((150, 140), 32),
    ],
    ids=str,
)
def test_random(quick_solver, dtype, shape, k):
    check_gradient(quick_solver, normal((1, *shape), dtype), k)


SIZES = [
    ((196, 384), 4),
    *(pytest.param(s, 4, marks=pytest.mark.slow) for s in [(784, 512), (1024, 1031)]),
]


@pytest.mark.parametrize(("shape", "k"), SIZES, ids=str)
def test_sizes_of_networks(quick_solver, shape, k):
    """Bases, tiles and tables of every size that the route has."""
    A = with_values(network(min(shape)), *shape, np.dtype("float32"))[None]
    state = check_gradient(quick_solver, A, k)
    assert state[3].reshape(-1)[KRYLOV] == 1


@pytest.mark.parametrize("shape", [(150, P), (P, 150)], ids=str)
@pytest.mark.parametrize("kind", ["network", "clustered", "below", "geometric", "rank 4"])
def test_spectrum(quick_solver, dtype, kind, shape):
    check_gradient(quick_solver, matrices(kind, shape, dtype), 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "k", "u"), [((150, P), 1, True), ((P, 150), 9, False), ((150, P), 32, True)], ids=str
)
@pytest.mark.parametrize("kind", ["network", "flat", "clustered", "below", "geometric", "rank 4"])
def test_spectrum_everywhere(quick_solver, dtype, kind, shape, k, u):
    if k > 4 and kind == "rank 4":
        pytest.skip("the vectors beyond the rank are arbitrary")
    for scale, lorentz in [(1.0, True), (1e25, False), (1e-25, False)]:
        A = matrices(kind, shape, dtype, scale)
        check_gradient(quick_solver, A, k, scale=scale, u=u, lorentz=lorentz)


@pytest.mark.parametrize("wanted", ["U", "V", "S", "SV without U"])
@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_cotangents_and_scales(quick_solver, dtype, wanted, scale):
    A = matrices("network", (140, P), dtype, scale)
    names, u = wanted.split()[0], "without" not in wanted
    check_gradient(quick_solver, A, 3, scale=scale, wanted=names, u=u)


@pytest.mark.parametrize("k", [1, 4])
def test_cotangents_of_any_size(quick_solver, dtype, k):
    """The squares that conjugate gradients take of them neither vanish nor overflow."""
    A = matrices("network", (140, P), dtype)
    state = quick_solver.forward(A, k)
    assert state[3].reshape(-1)[KRYLOV] == 1
    cotangents = cotangents_for(state)
    expected = quick_solver.backward(cotangents, A, state)
    large = dtype.type(2.0 ** (90 if dtype == np.float32 else 600))
    for scale in (large, 1 / large):
        found = quick_solver.backward([g * scale for g in cotangents], A, state) / scale
        gate = P * np.finfo(dtype).eps * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=gate)


@pytest.mark.parametrize("wanted", ["U", "S", "V"])
def test_nan_in_a_cotangent_is_seen(quick_solver, dtype, wanted):
    A = normal((2, P, 140), dtype)
    state = quick_solver.forward(A, 1)  # no pair is kept beyond the first: the solve alone meets it
    cotangents = cotangents_for(state, wanted)
    for g in cotangents:
        if g is not None:
            g.reshape(2, -1)[0, 0] = np.nan
    gA = quick_solver.backward(cotangents, A, state)
    assert np.isnan(gA[0]).all()
    assert np.isfinite(gA[1]).all()


def check_special(solver, A, k, u):
    state = solver.forward(A, k, u=u)
    assert_triples(A, *state[:3])
    assert_canonical(state[2])
    assert np.isfinite(state[3]).all()
    for lorentz in (False, True):
        gA = solver.backward(cotangents_for(state), A, state, lorentz=lorentz)
        assert np.isfinite(gA).all()
        zeros = [None if x is None else np.zeros_like(x) for x in state[:3]]
        assert (solver.backward(zeros, A, state, lorentz=lorentz) == 0).all()


@pytest.mark.parametrize("kind", ["identity", "zero", "rank 2", "graded", "nearly diagonal"])
def test_special(quick_solver, dtype, kind):
    check_special(quick_solver, special(kind, 140, P, dtype), 4, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "k", "u"), [((P, 150), 1, True), ((150, P), 4, False), ((P, 150), 32, False)], ids=str
)
@pytest.mark.parametrize("kind", KINDS)
def test_special_everywhere(quick_solver, dtype, kind, shape, k, u):
    check_special(quick_solver, special(kind, *shape, dtype), k, u)


@pytest.mark.parametrize("kind", ["plateau", "five equal", "identity"])
def test_cluster_across_k(quick_solver, dtype, kind):
    """|U S Vh|² is k times the repeated s²: the vectors outside that are as good do not matter."""
    shape = (140, P)
    A = special(kind, *shape, dtype) if kind == "identity" else matrices(kind, shape, dtype)
    U, S, Vh, saved = quick_solver.forward(A, 4)
    # the Krylov basis has found the others, or the tridiagonal form says that there are some
    assert saved.reshape(-1)[[CROWDED, KRYLOV]].sum() == 1
    product = U * S[:, None] @ Vh
    cotangents = [
        2 * product @ np.swapaxes(Vh, 1, 2) * S[:, None],
        2 * S,
        2 * S[:, :, None] * (np.swapaxes(U, 1, 2) @ product),
    ]
    cotangents[1] = np.einsum("bik,bij,bkj->bk", U, 2 * product, Vh)
    gA = quick_solver.backward([g.astype(dtype) for g in cotangents], A, (U, S, Vh, saved))
    gate = 100 * P * np.finfo(dtype).eps
    assert np.abs(gA - 2 * product).max() <= gate * np.abs(2 * product).max()


def test_rounds_say_what_they_left(quick_solver, dtype):
    kinds = ["network", "rank 4", "zero", "level"]
    A = np.concatenate(
        [special(k, 140, P, dtype) if k == "zero" else matrices(k, (140, P), dtype) for k in kinds]
    )
    saved = quick_solver.forward(A, 6)[3].reshape(4, -1)
    assert saved[:, EXHAUSTED].tolist() == [0, 1, 1, 0]
    assert saved[:, CROWDED].tolist() == [0, 0, 0, 1]
    assert saved[1, SCALE] > 100 * saved[0, SCALE]  # of a later round


def test_schedules_and_neighbours(solver):
    """Every schedule gives the same bits, and every matrix those that it has alone."""
    dtype, k, shape = np.dtype("float32"), 4, (140, P)
    A = np.concatenate([matrices(kind, shape, dtype) for kind in ("network", "below")])
    A = np.concatenate([A, special("rank 2", *shape, dtype), A[:1]])
    A[3, 5, 7] = np.nan
    state = solver.forward(A, k)
    cotangents = cotangents_for(state)
    gA = solver.backward(cotangents, A, state)
    for outputs in (*state, gA):
        assert np.isnan(outputs[3]).all()
    for i in range(3):
        alone = solver.forward(A[i : i + 1], k)
        assert_same_bits([x[0] for x in alone], [x[i] for x in state])
        own = solver.backward([g[i : i + 1] for g in cotangents], A[i : i + 1], alone)
        assert_same_bits([own[0]], [gA[i]])


@pytest.mark.parametrize("u", [True, False], ids=["with U", "without U"])
@pytest.mark.parametrize("shape", [(140, P), (P, 140)], ids=str)
def test_order(quick_solver, dtype, shape, u):
    """A matrix by rows and the same one by columns: one result."""
    A = np.concatenate([matrices("network", shape, dtype), matrices("below", shape, dtype)])
    turned = by_columns(A)
    expected, found = (quick_solver.forward(x, 5, u=u) for x in (A, turned))
    assert_same_bits(found, expected)
    cotangents = cotangents_for(expected)
    gA = quick_solver.backward(cotangents, A, expected)
    turned_gA = quick_solver.backward(cotangents, turned, found)
    assert turned_gA.strides[1:] == turned.strides[1:]
    # the tiles of the last product lie along memory: other sums in another order
    np.testing.assert_allclose(
        turned_gA, gA, rtol=0, atol=50 * np.finfo(dtype).eps * np.abs(gA).max()
    )


@pytest.mark.parametrize("k", [4, 16])
@pytest.mark.parametrize("shape", [(P, 300), (260, P)], ids=str)
def test_rank_one(solver, dtype, shape, k):
    """All rows are rounded alike, so that the noise in other long vectors is parallel."""
    for A in (np.ones((1, *shape), dtype), np.full((1, *shape), 1 / 3, dtype)):
        assert_triples(A, *solver.forward(A, k)[:3])
