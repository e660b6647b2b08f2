"""The decompositions with their backend chosen, of arguments that are checked.

What the public functions of this room are made of. m and n are the shape of a matrix, which they
have asked A for already.
"""

from __future__ import annotations

from torch import Tensor

from kdops._autograd import wants_grad
from kdops.ops.svd.limits import largest_k
from kdops.ops.svd.registration import EIGH, SVD, SVDVALS, TOPK

# Up to this small side U costs less in the forward than A V / s in the backward, which the gradient
# of S and Vh needs as well: a half at 16x16, as much at 49x32, a third more at 256x128 (CPU, AVX2).
CHEAP_U = 32

Triple = tuple["Tensor | None", Tensor, Tensor]


def is_few(k: int, r: int) -> bool:
    """Whether k of r triples are cheaper by themselves than the whole decomposition.

    From r / 2 on the top-k kernels decompose in full, too: csrc/svd/topk/cpu/layout.h.
    """
    return k <= largest_k(r) and 2 * k < r


def topk(
    A: Tensor, m: int, n: int, k: int, compute_u: bool, canonical: bool, degenerate: str
) -> Triple:
    if TOPK.serves(A, m, n, k):
        U, S, Vh, _ = TOPK.run(A, k, compute_u, canonical, degenerate == "lorentz")
    else:
        options = {"compute_u": compute_u, "canonical": canonical, "degenerate": degenerate}
        U, S, Vh = TOPK.plain(A, k, **options)
    return (U if compute_u else None), S, Vh


def full(
    A: Tensor, m: int, n: int, compute_u: bool, canonical: bool, degenerate: str, mode: str
) -> Triple:
    with_u, fast = compute_u or (min(m, n) <= CHEAP_U and wants_grad(A)), mode == "fast"
    if SVD.serves(A, m, n):
        U, S, Vh = SVD.run(A, with_u, canonical, fast, degenerate == "lorentz")
    else:
        options = {"canonical": canonical, "degenerate": degenerate, "fast": fast}
        U, S, Vh = SVD.plain(A, compute_u=with_u, **options)
    return (U if compute_u else None), S, Vh


def values(A: Tensor, m: int, n: int) -> Tensor:
    """All singular values."""
    S: Tensor = SVDVALS.run(A) if SVDVALS.serves(A, m, n) else SVDVALS.plain(A)
    return S


def eigh(A: Tensor, n: int) -> tuple[Tensor, Tensor]:
    w, Q = EIGH.run(A) if EIGH.serves(A, n, n) else EIGH.plain(A)
    return w, Q


def empty(A: Tensor, compute_u: bool) -> Triple:
    """The decomposition of matrices without entries."""
    *batch, m, n = A.shape
    U = A.new_zeros((*batch, m, 0)) if compute_u else None
    return U, A.new_zeros((*batch, 0)), A.new_zeros((*batch, 0, n))
