"""The simulated top-k SVD kernels and the measures of their results, for any size."""

from __future__ import annotations

import numpy as np
from sim_matrices import FULL_SHARED, assert_orthonormal_columns, orthogonal


class Solver:
    """Calls the kernels under every schedule; outputs start as NaN."""

    def __init__(self, sim, every_schedule):
        self.sim, self.every_schedule = sim, every_schedule

    def forward(self, A, k, *, u=True, shared=FULL_SHARED):
        count, m, n = A.shape
        p = min(m, n)

        def call():
            U = np.full((count, m, k), np.nan, A.dtype) if u else None
            S = np.full((count, k), np.nan, A.dtype)
            Vh = np.full((count, k, n), np.nan, A.dtype)
            # a backend may leave parts of saved unwritten: zeros, so that schedules compare equal
            saved = np.zeros((count, p + 3 if p <= 128 else p + 2 * k + 8, p), A.dtype)
            self.sim.svd_topk(A, U, S, Vh, saved, True, shared)
            return [x for x in (U, S, Vh, saved) if x is not None]

        result = self.every_schedule(call)
        return tuple(result) if u else (None, *result)

    def backward(self, cotangents, A, state, *, lorentz=False, shared=FULL_SHARED):
        def call():
            gA = np.full_like(A, np.nan)
            self.sim.svd_topk_backward(*cotangents, A, *state, gA, lorentz, shared)
            return gA

        return self.every_schedule(call)[0]


def assert_triples(A, U, S, Vh):
    """Values, orthonormality, A V = U S and A^T U = V S, all to 20 p eps of s_1.

    Without U the products A V must be as orthogonal and as long as U S, to as much of s_1.
    """
    k, gate = S.shape[1], 20 * min(A.shape[1:]) * np.finfo(A.dtype).eps
    unit = np.maximum(np.abs(A.astype(np.float64)).max((1, 2), keepdims=True), 1e-300)
    A, S, V = (x.astype(np.float64) for x in (A, S, np.swapaxes(Vh, 1, 2)))
    A, S = A / unit, S / unit[:, 0]
    expected = np.linalg.svd(A, compute_uv=False)
    largest = np.maximum(expected[:, :1], 1e-300)
    assert (np.diff(S, axis=1) <= 0).all()
    assert (np.abs(S - expected[:, :k]) <= gate * largest).all()
    assert_orthonormal_columns(V, gate)
    image = A @ V
    if U is None:
        lengths = np.linalg.norm(image, axis=1)
        assert (np.abs(lengths - S) <= gate * largest).all()
        products = np.abs(np.swapaxes(image, 1, 2) @ image) * (1 - np.eye(k))
        longer = np.maximum(lengths[:, :, None], lengths[:, None]) + gate * largest[:, None]
        assert (products <= gate * largest[:, None] * longer).all()
        return
    U = U.astype(np.float64)
    assert_orthonormal_columns(U, gate)
    assert (np.linalg.norm(image - U * S[:, None], axis=1) <= gate * largest).all()
    back = np.swapaxes(A, 1, 2) @ U
    assert (np.linalg.norm(back - V * S[:, None], axis=1) <= gate * largest).all()


def with_values(values, m, n, dtype):
    p = min(m, n)
    return ((orthogonal(m, 1)[:, :p] * values) @ orthogonal(n, 2)[:p]).astype(dtype)


def perturbation_gradient(A, S, Vh, gU, gS, gVh):
    """gA in float64 from all singular pairs, with the kernel's signs."""
    (m, n), k, p = A.shape, len(S), min(A.shape)
    U, s, V = np.linalg.svd(A.astype(np.float64))
    V = V.T
    signs = np.sign((V[:, :k] * Vh.T).sum(0))
    U[:, :k] *= signs
    V[:, :k] *= signs
    left = np.zeros((m, k)) if gU is None else U.T @ gU
    right = np.zeros((n, k)) if gVh is None else V.T @ gVh.T
    core = np.zeros((m, n))  # the coefficients of U^T dA V
    for i in range(k):
        core[i, i] += 0 if gS is None else gS[i]
        for j in range(max(m, n)):
            if j == i:
                continue
            sj = s[j] if j < p else 0.0
            gap = s[i] ** 2 - sj**2
            if j < m:
                core[j, i] += left[j, i] * s[i] / gap
                if j < p:
                    core[i, j] += left[j, i] * sj / gap
            if j < n:
                core[i, j] += right[j, i] * s[i] / gap
                if j < p:
                    core[j, i] += right[j, i] * sj / gap
    return U @ core @ V.T


def assert_same_bits(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a is None and b is None) or np.array_equal(a, b)
