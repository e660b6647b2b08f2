"""What the C++ kernels of this room take: csrc/svd/limits.h, repeated (test_limits.py)."""

from __future__ import annotations

LARGEST_SMALL_SIDE = 128  # min(m, n), except for a few triples
LARGEST_K = 16
LARGEST_K_ABOVE = 32  # where min(m, n) is above LARGEST_SMALL_SIDE
LARGEST_TOPK_ON_CUDA = 2048  # min(m, n); on the CPU any
# Where the CPU kernel tries a Krylov basis: csrc/svd/topk/cpu/large_forward.h. On CUDA: at every
# small side above LARGEST_SMALL_SIDE.
KRYLOV_FROM_SMALL_SIDE = 224
LARGEST_KRYLOV_K = 8


def largest_k(p: int) -> int:
    """The most triples that the top-k kernels find of matrices with min(m, n) = p."""
    return LARGEST_K if p <= LARGEST_SMALL_SIDE else LARGEST_K_ABOVE


def saved_rows(p: int, k: int) -> int:
    """svd_topk's workspace is (..., rows, p), p = min(m, n): csrc/svd/shared/saved.h."""
    return p + 3 if p <= LARGEST_SMALL_SIDE else p + 2 * k + 8
