"""The decompositions with their backend chosen, of arguments that are checked.

What the public functions of this room are made of. m and n are the shape of a matrix, which they
have asked A for already.
"""

from __future__ import annotations

from torch import Tensor

from kdops import _backends
from kdops._autograd import wants_grad
from kdops._precision import full_precision
from kdops.ops.svd import reference, registration

# Up to this small side U costs less in the forward than A V / s in the backward, which the gradient
# of S and Vh needs as well: a half at 16x16, as much at 49x32, a third more at 256x128 (CPU, AVX2).
CHEAP_U = 32

Triple = tuple["Tensor | None", Tensor, Tensor]


def is_few(k: int, r: int) -> bool:
    """Whether k of r triples are cheaper by themselves than the whole decomposition.

    From r / 2 on the top-k kernels decompose in full, too: csrc/svd/topk/cpu/layout.h.
    """
    return k <= registration.largest_k(r) and 2 * k < r


def topk(
    A: Tensor, m: int, n: int, k: int, compute_u: bool, canonical: bool, degenerate: str
) -> Triple:
    if _backends.choose_for("svd_topk", A, m, n, k) == "native":
        lorentz = degenerate == "lorentz"
        U, S, Vh, _ = registration.ops["svd_topk"](A, k, compute_u, canonical, lorentz)
        return (U if compute_u else None), S, Vh
    return reference.svd_topk(A, k, compute_u=compute_u, canonical=canonical, degenerate=degenerate)


def full(
    A: Tensor, m: int, n: int, compute_u: bool, canonical: bool, degenerate: str, mode: str
) -> Triple:
    with_u = compute_u or (min(m, n) <= CHEAP_U and wants_grad(A))
    if _backends.choose_for("svd", A, m, n) == "native":
        lorentz = degenerate == "lorentz"
        U, S, Vh = registration.ops["svd"](A, with_u, canonical, mode == "fast", lorentz)
    else:
        U, S, Vh = reference.svd(A, compute_u=with_u, canonical=canonical, degenerate=degenerate)
    return (U if compute_u else None), S, Vh


def values(A: Tensor, m: int, n: int) -> Tensor:
    """All singular values."""
    if _backends.choose_for("svdvals", A, m, n) == "native":
        S: Tensor = registration.ops["svdvals"](A)
        return S
    return reference.svdvals(A)


def eigh(A: Tensor, n: int) -> tuple[Tensor, Tensor]:
    if _backends.choose_for("eigh", A, n, n) == "native":
        w, Q = registration.ops["eigh"](A)
        return w, Q
    return reference.eigh(A)


def align(student: Tensor, teacher: Tensor, *sizes: int) -> Tensor:
    """sizes: D, K', k."""
    if _backends.choose_for("align_singular_vectors", student, *sizes) == "native":
        aligned: Tensor = registration.ops["align_vectors"](student, teacher)[0]
        return aligned
    with full_precision(student):
        return reference.align_singular_vectors(student, teacher)


def empty(A: Tensor, compute_u: bool) -> Triple:
    """The decomposition of matrices without entries."""
    *batch, m, n = A.shape
    U = A.new_zeros((*batch, m, 0)) if compute_u else None
    return U, A.new_zeros((*batch, 0)), A.new_zeros((*batch, 0, n))
