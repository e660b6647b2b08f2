"""torch.linalg made safe for a batch: what the reference and the gradients decompose with.

torch.linalg raises, or spoils the whole batch, when one matrix holds a NaN; and the squares inside
an eigenvalue solver leave the range of the number type long before the input does. Both are mended
here, with tensor operations only (no data-dependent branch, so that the code traces): bad matrices
are decomposed as zeros and answered with NaN, and every matrix is scaled by a power of two.
No gradients: callers are autograd Functions.
"""

from __future__ import annotations

import torch
from torch import Tensor

Triple = tuple[Tensor, Tensor, Tensor]


def power_of_two_scale(A: Tensor) -> Tensor:
    """(..., 1, 1) powers of two c with max|c A| in [1/2, 1); about 1 for the zero matrix."""
    finfo = torch.finfo(A.dtype)
    largest = A.detach().abs().amax((-2, -1), keepdim=True)
    zero = largest == 0
    largest = largest.clamp(4 * finfo.tiny, finfo.max / 4)  # c itself stays a normal number
    mantissa, _ = torch.frexp(largest)
    return torch.where(zero, 1, mantissa / largest)


def finite_matrices(A: Tensor) -> Tensor:
    """(..., 1, 1) bool: the matrix holds neither NaN nor Inf."""
    return torch.isfinite(A).all(-1, keepdim=True).all(-2, keepdim=True)


def safe_svd(A: Tensor) -> Triple:
    """Thin U (..., m, r), S (..., r), Vh (..., r, n) ; NaN for non-finite matrices."""
    finite = finite_matrices(A)
    clean = torch.where(finite, A, 0)
    scale = power_of_two_scale(clean)
    # LAPACK loses digits of V on wide rank-1 matrices, of U on tall ones it does not
    wide = A.shape[-2] < A.shape[-1]
    work = clean.mT if wide else clean
    U, S, Vh = torch.linalg.svd(work * scale, full_matrices=False)
    if wide:
        U, Vh = Vh.mT, U.mT
    nan = torch.nan
    S = torch.where(finite[..., 0], S / scale[..., 0], nan)
    return torch.where(finite, U, nan), S, torch.where(finite, Vh, nan)


def safe_svdvals(A: Tensor) -> Tensor:
    """S (..., r), descending; NaN for non-finite matrices. No vectors are computed."""
    finite = finite_matrices(A)
    clean = torch.where(finite, A, 0)
    scale = power_of_two_scale(clean)
    S = torch.linalg.svdvals(clean * scale)
    return torch.where(finite[..., 0], S / scale[..., 0], torch.nan)


def safe_eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues (..., n) and eigenvectors (..., n, n), reading the lower triangle."""
    lower = A.tril()
    finite = finite_matrices(lower)
    clean = torch.where(finite, lower, 0)
    scale = power_of_two_scale(clean)
    values, vectors = torch.linalg.eigh(clean * scale)
    values = torch.where(finite[..., 0], values / scale[..., 0], torch.nan)
    return values, torch.where(finite, vectors, torch.nan)


def canonical_signs(Vh: Tensor) -> Tensor:
    """(..., r) of +-1 that make the rows of Vh canonical (METHODS 0.4).

    The sign makes max(v) + min(v) > 0. Where that sum is within 8 eps of zero, it makes the first
    entry of largest magnitude positive; "largest" with the same tolerance, or else two backends
    would disagree on v = (0.7071, -0.7071), whose entries differ by one rounding.
    """
    tolerance = 8 * torch.finfo(Vh.dtype).eps
    extremes = Vh.amax(-1) + Vh.amin(-1)
    magnitude = Vh.abs()
    near_largest = magnitude >= magnitude.amax(-1, keepdim=True) - tolerance
    first = near_largest.to(torch.uint8).argmax(-1, keepdim=True)
    entry = Vh.gather(-1, first).squeeze(-1)
    decider = torch.where(extremes.abs() <= tolerance, entry, extremes)
    return torch.where(decider < 0, -1, 1).to(Vh.dtype)
