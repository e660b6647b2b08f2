"""Matrices and measures that the simulated SVD kernels share, in numpy."""

from __future__ import annotations

import numpy as np

FULL_SHARED = 227 << 10  # bytes a block may use on the largest GPUs


def normal(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def by_columns(A):
    """The same matrices as they lie in feature maps (B, C, H, W) seen as positions x channels."""
    return np.swapaxes(np.ascontiguousarray(np.swapaxes(A, 1, 2)), 1, 2)


def orthogonal(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def assert_orthonormal_columns(Q, gate):
    gram = np.swapaxes(Q, 1, 2) @ Q
    assert np.abs(gram - np.eye(Q.shape[2])).max() <= gate


def assert_canonical(Vh):
    slack = 8 * np.finfo(Vh.dtype).eps
    for v in Vh.reshape(-1, Vh.shape[-1]):
        total = v.max() + v.min()
        near = np.abs(v) >= np.abs(v).max() - slack
        assert total > 0 if abs(total) > slack else v[near.argmax()] > 0


SPLIT_KINDS = ["nearly diagonal", "bidiagonal with tiny coupling", "planted zeros"]
SPLIT_KINDS += ["block diagonal", "orthogonal columns plus noise"]


def nearly_split(kind, values, coupling, m, n, seed=0):
    """m x n (float64) with about the given singular values, which falls apart but for couplings."""
    rng, p = np.random.default_rng(seed), min(m, n)
    A, noise = np.zeros((m, n)), coupling * rng.standard_normal((m, n))
    np.fill_diagonal(A, values)
    match kind:
        case "nearly diagonal":
            return A + noise
        case "bidiagonal with tiny coupling":
            return A + coupling * np.eye(m, n, 1)
        case "planted zeros":
            return A + noise * (rng.random((m, n)) < 0.3)
        case "block diagonal":
            for begin in range(0, p, 4):
                block = A[begin : min(begin + 4, p), begin : min(begin + 4, p)]
                block[:] = orthogonal(len(block), begin + 1) @ block @ orthogonal(len(block), begin)
            return A + noise
        case "orthogonal columns plus noise":
            return orthogonal(m, 3) @ A + noise
    raise ValueError(kind)


def special(name, m, n, dtype):
    """One matrix (1, m, n) of the kind that breaks SVD codes."""
    small, p, rng = dtype.itemsize == 4, min(m, n), np.random.default_rng(7)
    A = rng.standard_normal((m, n))
    left, right = orthogonal(m, 1)[:, :p], orthogonal(n, 2)[:p]
    match name:
        case "identity":
            A = np.eye(m, n)
        case "zero":
            A = np.zeros((m, n))
        case "ones":
            A = np.ones((m, n))
        case "rank 2":
            A = A[:, :2] @ rng.standard_normal((2, n))
        case "dead channels":
            A[:, ::3] = 0
        case "duplicate channels":
            A[:, 1::2] = A[:, : n - 1 : 2]
        case "repeated":
            A = (left * (1 + np.arange(p) // 4)) @ right
        case "ill-conditioned":
            A = (left * np.logspace(0, -6 if small else -14, p)) @ right
        case "graded":
            A = A * np.logspace(0, -12 if small else -100, n)
        case "large":
            A = A * (1e25 if small else 1e150)
        case "tiny":
            A = A * (1e-25 if small else 1e-150)
        case _ if name in SPLIT_KINDS:
            A = nearly_split(name, 1 / (1 + np.arange(p)), 1e-14 if small else 1e-120, m, n)
    return A.astype(dtype)[None]


KINDS = ["identity", "zero", "ones", "rank 2", "dead channels", "duplicate channels", "repeated"]
KINDS += ["ill-conditioned", "graded", "large", "tiny", *SPLIT_KINDS]
