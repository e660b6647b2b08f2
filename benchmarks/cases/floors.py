"""What an op must at least move and compute: {mode: (bytes, FLOP)}; B matrices, float32.

The report divides by the measured ceilings of a GPU (gpu.ceilings) and prints how far a time is
from the larger of the two. A lower bound: an algorithm that converges needs more.
"""

from __future__ import annotations

Floor = dict[str, tuple[float, float]]


def svd(m: int, n: int, batch: int, size: int = 4) -> Floor:
    """A is read, U, S and Vh written; 12 m n min(m, n) operations, a lower bound."""
    short = min(m, n)
    moved = size * batch * (m * n + (m + n + 1) * short)
    return {"forward": (moved, 12.0 * batch * m * n * short)}


def top(m: int, n: int, k: int, batch: int, size: int = 4) -> Floor:
    """Half a Gram matrix, its tridiagonal form, k vectors; a wide A is read again for V."""
    short, wide = min(m, n), n > m
    moved = size * batch * ((2 if wide else 1) * m * n + k * n)
    flop = batch * (short * m * n + 4 / 3 * short**3 + (2 * k * m * n if wide else 0))
    return {"forward": (moved, flop)}


def angle(n: int, d: int, size: int = 4) -> Floor:
    """22 instructions (two FLOP each) for each of n³ / 2 triples, loss and gradient together."""
    return {"both": (size * 3 * n * d, 22.0 * n**3)}
