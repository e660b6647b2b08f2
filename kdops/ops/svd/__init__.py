"""Batched singular value and symmetric eigenvalue decompositions of small matrices."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from kdops import _check, _inputs
from kdops.ops.svd import arguments, calls
from kdops.ops.svd.gradient import DEGENERATE_POLICIES
from kdops.ops.svd.polar import Polar, batched_nuclear_norm, batched_polar

__all__ = [
    "SVD",
    "Eigh",
    "Polar",
    "batched_eigh",
    "batched_nuclear_norm",
    "batched_polar",
    "batched_svd",
    "batched_svdvals",
]

MODES = ("accurate", "fast")


class SVD(NamedTuple):
    """A = U diag(S) Vh; U is None where it was not asked for."""

    U: Tensor | None
    S: Tensor
    Vh: Tensor


class Eigh(NamedTuple):
    """A = Q diag(eigenvalues) Q^T with Q = eigenvectors (columns)."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def batched_svd(
    A: Tensor,
    k: int | None = None,
    *,
    compute_u: bool = True,
    canonical: bool = True,
    degenerate: str = "mask",
    mode: str = "accurate",
    full_matrices: bool = False,
    driver: None = None,
    out: None = None,
) -> SVD:
    """Thin singular value decomposition A = U diag(S) Vh of every matrix, or its k largest triples.

    The result convention is that of torch.linalg.svd(A, full_matrices=False).

    Args:
        A: (..., m, n), any leading dimensions, any strides; float64, float32, float16 or bfloat16
            (half types are computed in float32, and so is everything under autocast). Feature maps
            seen as maps.flatten(2).mT are read where they lie.
        k: number of triples, 1 <= k <= r = min(m, n); None means all r. A small k is much cheaper:
            the other triples are computed neither forward nor backward. Anything with __index__.
        compute_u: False leaves U out (None) and saves its cost, except where a gradient of the full
            decomposition is wanted and needs U (r <= 32). The gradient stays exact.
        canonical: choose each pair's sign such that the entries of its right vector v satisfy
            max(v) + min(v) > 0 (a tie: its first entry of largest magnitude is positive). Then the
            result does not depend on backend and device, and negating A leaves Vh unchanged.
            False leaves any sign.
        degenerate: the gradient at equal or zero singular values, relative to the largest one with
            tau = 8 sqrt(r) eps, below which rounding splits equal values. "mask" drops the divisors
            below tau: exact for functions of singular values and of projectors. "lorentz" smooths
            1/d to d / (d² + tau²). Both are always finite, and pairs of vectors that the loss does
            not use contribute exactly zero. A loss that joins U and V among values closer than tau,
            as U S Vh does, loses what that pair makes together (docs/svd.md).
        mode: "fast" decomposes AᵀA (AAᵀ if m < n) without the clean-up that restores accuracy: the
            vectors of the longer side, U if m >= n, lose orthogonality, and singular values below
            sqrt(eps) times the largest are noise (docs/svd.md has figures). Top-k and the CUDA
            kernels, up to r = 128, ignore it.
        full_matrices, driver, out: for code written for torch.linalg.svd. Only these values are
            offered, any other is an error that says what to do instead.

    Returns:
        SVD(U, S, Vh): (..., m, r), (..., r) descending, (..., r, n) in the dtype of A, with k in
        the place of r if it was given. U and V are orthonormal also at zero singular values.

    Differs from torch.linalg.svd: canonical signs; a matrix with NaN or Inf gives NaN for itself
    alone (torch raises, or spoils the batch); the gradient is never NaN at equal or zero singular
    values; losses that depend on the sign of a vector are accepted (the sign passes no gradient);
    half types; k; real numbers only. Where r > 128, torch.linalg computes, except a small k (up to
    32; on CUDA r <= 2048).

    Cost: about 2 m n r + 20 r³ FLOP per matrix; with k, m n r + 2 r³ + O(m n k), and for large r
    and k <= 8 on the CPU m n r + 200 r² + O(m n k) where the spectrum decays. Gradient: exact and
    differentiable again; with k it reads A once and writes its gradient once.

    >>> maps = torch.randn(128, 1024, 64, requires_grad=True)
    >>> U, S, Vh = batched_svd(maps, k=4)
    >>> U.shape, S.shape, Vh.shape
    (torch.Size([128, 1024, 4]), torch.Size([128, 4]), torch.Size([128, 4, 64]))
    """
    op = "batched_svd"
    m, n = arguments.matrix_shape(op, A)
    _check.option(op, "degenerate", degenerate, DEGENERATE_POLICIES)
    _check.option(op, "mode", mode, MODES)
    if full_matrices is not False or driver is not None or out is not None:
        arguments.only(op, full_matrices=full_matrices, driver=driver, out=out)
    r = min(m, n)
    k = r if k is None else arguments.count(op, k, r)
    work, dtype = _inputs.computed(A)
    if r == 0:
        U, S, Vh = calls.empty(work, compute_u)
    elif k < r and calls.is_few(k, r):
        U, S, Vh = calls.topk(work, m, n, k, compute_u, canonical, degenerate)
    else:
        U, S, Vh = calls.full(work, m, n, compute_u, canonical, degenerate, mode)
        if k < r:
            U = U[..., :k] if U is not None else None
            S, Vh = S[..., :k], Vh[..., :k, :]
    if work.dtype == dtype:
        return SVD(U, S, Vh)
    return SVD(None if U is None else U.to(dtype), S.to(dtype), Vh.to(dtype))


def batched_svdvals(
    A: Tensor, k: int | None = None, *, driver: None = None, out: None = None
) -> Tensor:
    """Singular values of every matrix, descending: all of them or the k largest.

    Args:
        A: (..., m, n), as for batched_svd.
        k: how many, 1 <= k <= min(m, n); None means all.
        driver, out: for code written for torch.linalg.svdvals. Only None is offered.

    Returns:
        (..., k) in the dtype of A. Accurate to n eps times the largest value, as torch's.

    Cost: about half of batched_svd(compute_u=False). The gradient, U diag(g) Vh, decomposes again
    in the backward: where a gradient is certain, batched_svd(A).S is cheaper. A matrix with NaN or
    Inf gives NaN for itself alone.

    >>> batched_svdvals(torch.eye(3))
    tensor([1., 1., 1.])
    """
    op = "batched_svdvals"
    m, n = arguments.matrix_shape(op, A)
    arguments.only(op, driver=driver, out=out)
    r = min(m, n)
    k = r if k is None else arguments.count(op, k, r)
    work, dtype = _inputs.computed(A)
    if r == 0:
        S = work.new_zeros((*A.shape[:-2], 0))
    elif k < r and calls.is_few(k, r):
        S = calls.topk(work, m, n, k, False, False, "mask")[1]
    else:
        S = calls.values(work, m, n)
    return _inputs.of_dtype(S if k == S.shape[-1] else S[..., :k], dtype)


def batched_eigh(A: Tensor, UPLO: str = "L", *, out: None = None) -> Eigh:
    """Eigenvalues and orthonormal eigenvectors of real symmetric matrices, as torch.linalg.eigh.

    Args:
        A: (..., n, n), of which the lower triangle is read; dtypes as for batched_svd.
        UPLO, out: for code written for torch.linalg.eigh. Only these values are offered.

    Returns:
        Eigh(eigenvalues, eigenvectors): (..., n) ascending and (..., n, n) as columns, in the dtype
        of A. The sign of a vector is free.

    The gradient is the symmetric matrix Q [skew(Qᵀ gQ) / (w_j - w_i) + diag(gw)] Qᵀ, with pairs of
    equal eigenvalues left out ("mask" of batched_svd), so it is always finite. A matrix with NaN or
    Inf gives NaN for itself alone. Where n > 128, torch.linalg computes.

    Cost: about 20 n³ FLOP per matrix.

    >>> batched_eigh(torch.diag(torch.tensor([3.0, 1.0]))).eigenvalues
    tensor([1., 3.])
    """
    op = "batched_eigh"
    m, n = arguments.matrix_shape(op, A, "[..., n, n]")
    arguments.only(op, UPLO=UPLO, out=out)
    if m != n:
        raise ValueError(f"{op}: expected A of shape [..., n, n], got {_check.describe(A)}")
    work, dtype = _inputs.computed(A)
    if n == 0:
        values, vectors = work.new_zeros(A.shape[:-1]), work.new_zeros(A.shape)
    else:
        values, vectors = calls.eigh(work, n)
    return Eigh(_inputs.of_dtype(values, dtype), _inputs.of_dtype(vectors, dtype))
