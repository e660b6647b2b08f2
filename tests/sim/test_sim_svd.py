"""The SVD kernels, launched as on a GPU, against numpy in float64, under every schedule.

Gates: |A - U S Vh| / |A|, |U^T U - I|, |V^T V - I| <= 20 p eps, |s - s_ref| <= 20 p eps s_1.
"""

from __future__ import annotations

import numpy as np
import pytest
from sim_matrices import (
    FULL_SHARED,
    KINDS,
    assert_canonical,
    assert_orthonormal_columns,
    by_columns,
    normal,
    orthogonal,
    special,
)

SHAPES = [(1, 1), (1, 5), (5, 1), (7, 3), (8, 8), (9, 9), (17, 31), (33, 40), (64, 64), (200, 24)]
SHAPES += [(24, 200), (300, 2)]


class Solver:
    """Calls the kernels under every schedule; outputs start as NaN."""

    def __init__(self, sim, every_schedule):
        self.sim, self.every_schedule = sim, every_schedule

    def svd(self, A, *, u=True, v=True, canonical=True, block=False, shared=FULL_SHARED):
        count, m, n = A.shape
        p = min(m, n)

        def call():
            U = np.full((count, m, p), np.nan, A.dtype) if u else None
            S = np.full((count, p), np.nan, A.dtype)
            Vh = np.full((count, p, n), np.nan, A.dtype) if v else None
            self.sim.svd(A, U, S, Vh, canonical, block, shared)
            return [x for x in (U, S, Vh) if x is not None]

        return self.every_schedule(call)

    def eigh(self, A, *, block=False):
        def call():
            values = np.full(A.shape[:2], np.nan, A.dtype)
            vectors = np.full(A.shape, np.nan, A.dtype)
            self.sim.eigh(A, values, vectors, block, FULL_SHARED)
            return values, vectors

        return self.every_schedule(call)


@pytest.fixture
def solver(sim, every_schedule):
    return Solver(sim, every_schedule)


def assert_svd(A, U, S, Vh):
    p = S.shape[1]
    gate = 20 * p * np.finfo(A.dtype).eps
    A, U, S, Vh = (x.astype(np.float64) for x in (A, U, S, Vh))
    largest = np.abs(A).max((1, 2), keepdims=True)
    unit = np.where(largest > 0, largest, 1)  # numpy itself must not overflow
    A, S = A / unit, S / unit[:, 0]
    expected = np.linalg.svd(A, compute_uv=False)
    assert (np.diff(S, axis=1) <= 0).all()
    assert (np.abs(S - expected) <= gate * expected[:, :1]).all()
    assert_orthonormal_columns(U, gate)
    assert_orthonormal_columns(np.swapaxes(Vh, 1, 2), gate)
    residual = np.linalg.norm(A - (U * S[:, None]) @ Vh, axis=(1, 2))
    assert (residual <= gate * np.linalg.norm(A, axis=(1, 2))).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random(solver, dtype, shape):
    A = normal((2 if max(shape) <= 32 else 1, *shape), dtype)
    U, S, Vh = solver.svd(A)
    assert_svd(A, U, S, Vh)
    assert_canonical(Vh)


@pytest.mark.parametrize("shape", [(3, 3), (16, 5), (32, 32)], ids=str)
def test_a_block_takes_small_matrices_too(solver, dtype, shape):
    A = normal((1, *shape), dtype)
    assert_svd(A, *solver.svd(A, block=True))


@pytest.mark.parametrize("block", [False, True], ids=["by size", "block"])
@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (9, 9), (17, 31), (90, 36), (36, 90)], ids=str)
def test_order(solver, dtype, shape, block):
    """Matrices by rows and the same ones by columns: one result."""
    A = normal((2, *shape), dtype)
    found, expected = (solver.svd(x, block=block) for x in (by_columns(A), A))
    for a, b in zip(found, expected, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("shape", [(8, 6), (12, 16), (36, 10)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_special(solver, dtype, kind, shape):
    A = special(kind, *shape, dtype)
    U, S, Vh = solver.svd(A)
    assert_svd(A, U, S, Vh)
    assert_canonical(Vh)


@pytest.mark.parametrize("shape", [(4, 6), (36, 9)], ids=str)
def test_bad_matrix_stays_alone(solver, dtype, shape):
    A = normal((3, *shape), dtype)
    clean = solver.svd(A)
    for bad in (np.nan, np.inf):
        A[1, -1, 1] = bad
        for before, after in zip(clean, solver.svd(A), strict=True):
            assert np.isnan(after[1]).all()
            assert np.array_equal(before[[0, 2]], after[[0, 2]])


@pytest.mark.parametrize("shape", [(5, 7), (20, 70), (70, 20)], ids=str)
def test_parts_that_are_not_asked_for(solver, dtype, shape):
    A = normal((1, *shape), dtype)
    _, S, Vh = solver.svd(A)
    S_without_u, Vh_without_u = solver.svd(A, u=False)
    assert np.array_equal(S, S_without_u)
    assert np.array_equal(Vh, Vh_without_u)
    (values,) = solver.svd(A, u=False, v=False)
    np.testing.assert_allclose(values, S, rtol=0, atol=20 * 20 * np.finfo(dtype).eps * S.max())


def test_negated_input_keeps_vh(solver, dtype):
    A = normal((2, 10, 7), dtype)
    U, S, Vh = solver.svd(A)
    U_negated, S_negated, Vh_negated = solver.svd(-A)
    assert np.array_equal(Vh, Vh_negated)
    assert np.array_equal(S, S_negated)
    assert np.array_equal(U, -U_negated)


@pytest.mark.parametrize("kilobytes", [9, 32])
def test_matrices_that_do_not_fit_shared_memory(solver, dtype, kilobytes):
    """Neither W nor J, or J alone; smaller ones fit every device (kAlwaysShared)."""
    A = normal((1, 70, 66) if dtype == np.float32 else (1, 40, 33), dtype)
    U, S, Vh = solver.svd(A)
    for here, there in zip((U, S, Vh), solver.svd(A, shared=kilobytes << 10), strict=True):
        assert np.array_equal(here, there)


@pytest.mark.parametrize("n", [1, 2, 8, 13, 32, 50])
@pytest.mark.parametrize("kind", ["random", "definite", "opposite", "identity", "zero", "large"])
def test_eigh(solver, dtype, n, kind):
    A = np.random.default_rng(n).standard_normal((n, n))
    A = A + A.T
    if kind == "definite":
        A = A @ A.T
    if kind == "opposite":  # pairs of eigenvalues +x and -x, which an SVD alone mixes
        Q = orthogonal(n, 3)
        A = (Q * np.resize([2.0, -2.0, 1.0, -1.0], n)) @ Q.T
    if kind in ("identity", "zero"):
        A = np.eye(n) * (kind == "identity")
    A = (A * (1e25 if kind == "large" else 1)).astype(dtype)[None]
    upper = np.triu(np.full((n, n), np.nan), 1).astype(dtype)
    values, vectors = solver.eigh(A + upper)  # only the lower triangle is read
    lower = np.tril(A[0]).astype(np.float64)
    A = lower + np.tril(lower, -1).T
    gate = 20 * n * np.finfo(dtype).eps
    norm = max(np.linalg.norm(A, 2), 1e-300)
    values, vectors = values[0].astype(np.float64), vectors[0].astype(np.float64)
    assert (np.abs(values - np.linalg.eigvalsh(A)) <= gate * norm).all()
    assert (np.diff(values) >= 0).all()
    assert_orthonormal_columns(vectors[None], gate)
    assert np.linalg.norm(A @ vectors - vectors * values) <= gate * norm * np.sqrt(n)


@pytest.mark.parametrize("kind", ["dense", "offset", "graded columns", "half rank"])
@pytest.mark.parametrize("n", [8, 13, 32, 66])
def test_eigh_is_as_exact_as_lapack(sim, dtype, n, kind):
    """Residual and orthonormality of a few eps |A|: whatever shifts A by its norm loses more."""
    A = np.random.default_rng(n).standard_normal((n, n))
    if kind == "graded columns":
        A = A * np.logspace(0, -6, n)
    if kind == "half rank":
        A = A[:, : n // 2] @ A[: n // 2] / n
    A = (A + A.T + (3 if kind == "offset" else 0)).astype(dtype)[None]
    values, vectors = Solver(sim, lambda call: call()).eigh(A)
    A, values, Q = (x[0].astype(np.float64) for x in (A, values, vectors))
    gate = 2 * np.sqrt(n) * np.finfo(dtype).eps
    assert np.linalg.norm(A - (Q * values) @ Q.T) <= gate * np.linalg.norm(A)
    assert np.linalg.norm(Q.T @ Q - np.eye(n)) <= gate * np.sqrt(n)


@pytest.mark.parametrize("n", [6, 16, 40])
def test_eigh_of_graded_matrices(sim, n):
    """Small values have their own digits, though a norm in float32 would swallow them."""
    diagonal = 0.45 ** np.arange(min(n, 20))
    A = np.diag(diagonal) + np.diag(1e-4 * diagonal[:-1], -1)
    A = np.kron(np.eye(1 + (n > 20)), A).astype(np.float32)
    values, _ = Solver(sim, lambda call: call()).eigh(A[None])
    A = np.tril(A, -1) + np.tril(A).T
    expected = np.linalg.eigvalsh(A.astype(np.float64))
    assert (np.abs(values[0] - expected) <= 20 * np.finfo(np.float32).eps * expected).all()


def test_eigh_of_a_bad_matrix(solver, dtype):
    A = normal((3, 6, 6), dtype)
    clean = solver.eigh(A)
    A[2, 4, 1] = np.inf
    for before, after in zip(clean, solver.eigh(A), strict=True):
        assert np.isnan(after[2]).all()
        assert np.array_equal(before[:2], after[:2])
