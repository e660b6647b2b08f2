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

from kdops._maths import power_of_two_scale

Triple = tuple[Tensor, Tensor, Tensor]


def scale_of(A: Tensor) -> Tensor:
    """(..., 1, 1) powers of two c with max|c A| in [1/2, 1); 1 for matrices of zeros."""
    return power_of_two_scale(A.abs().amax((-2, -1), keepdim=True))


def _prepared(A: Tensor) -> Triple:
    """Scaled matrices, zero for those with NaN or Inf; what the results' values are to be divided
    by, and 1, or NaN for these, that vectors are to be multiplied by, (..., 1, 1) both."""
    largest = A.detach().abs().amax((-2, -1), keepdim=True)  # amax keeps NaN
    finite = torch.isfinite(largest)
    scale = power_of_two_scale(torch.where(finite, largest, 0))
    mark = torch.where(finite, 1, torch.nan).to(A.dtype)
    return torch.where(finite, A, 0) * scale, scale * mark, mark


def safe_svd(A: Tensor, canonical: bool = False, fast: bool = False) -> Triple:
    """Thin U (..., m, r), S (..., r), Vh (..., r, n); NaN for non-finite matrices. With the signs
    of LAPACK, or the canonical ones; fast: from the Gram matrix of the smaller side."""
    work, scale, mark = _prepared(A)
    # LAPACK loses digits of V on wide rank-1 matrices, of U on tall ones it does not
    wide = A.shape[-2] < A.shape[-1]
    tall = work.mT if wide else work
    U, S, Vh = _by_gram(tall) if fast else torch.linalg.svd(tall, full_matrices=False)
    if wide:
        U, Vh = Vh.mT, U.mT
    factor = mark[..., 0]
    if canonical:
        factor = factor * canonical_signs(Vh)
    return U * factor.unsqueeze(-2), S / scale[..., 0], Vh * factor.unsqueeze(-1)


def _by_gram(A: Tensor) -> Triple:
    """U, S, Vh of (..., m, n), m >= n; U and what is below sqrt(eps) s_1 as exact as they come."""
    values, vectors = torch.linalg.eigh(A.mT @ A)
    S, V = values.flip(-1).clamp_min(0).sqrt(), vectors.flip(-1)
    inverse = torch.where(S == 0, 0, 1 / S)
    return (A @ V) * inverse.unsqueeze(-2), S, V.mT


def safe_svdvals(A: Tensor) -> Tensor:
    """S (..., r), descending; NaN for non-finite matrices. No vectors are computed."""
    work, scale, _ = _prepared(A)
    S: Tensor = torch.linalg.svdvals(work)
    return S / scale[..., 0]


def safe_eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues (..., n) and eigenvectors (..., n, n), reading the lower triangle."""
    work, scale, mark = _prepared(A.tril())
    values, vectors = torch.linalg.eigh(work)
    return values / scale[..., 0], vectors * mark


def canonical_signs(Vh: Tensor) -> Tensor:
    """(..., r) of +-1 that make the rows of Vh canonical (METHODS 0.4).

    The sign makes max(v) + min(v) > 0. Where that sum is within 8 eps of zero, it makes the first
    entry of largest magnitude positive; "largest" with the same tolerance, or else two backends
    would disagree on v = (0.7071, -0.7071), whose entries differ by one rounding.
    """
    tolerance = 8 * torch.finfo(Vh.dtype).eps
    lowest, highest = torch.aminmax(Vh, dim=-1)
    extremes = lowest + highest
    magnitude = Vh.abs()
    near_largest = magnitude >= magnitude.amax(-1, keepdim=True) - tolerance
    first = near_largest.to(torch.uint8).argmax(-1, keepdim=True)
    entry = Vh.gather(-1, first).squeeze(-1)
    decider = torch.where(extremes.abs() <= tolerance, entry, extremes)
    return torch.where(decider < 0, -1, 1).to(Vh.dtype)
