"""The decompositions in plain PyTorch: torch.linalg, made batch-safe, with our own gradients.

Runs on any device, in float32 and float64 (callers bring half types to float32). The autograd of
torch.linalg is not used: it is NaN wherever two values are equal or one is zero, even where the
loss does not care. mode="fast" has no meaning here: the reference is always accurate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops import _check
from kdops._autograd import python_op
from kdops.ops.svd.gradient import eigh_backward, left_vectors, svd_backward, svd_topk_backward
from kdops.ops.svd.linalg import canonical_signs, safe_eigh, safe_svd

Triple = tuple[Tensor | None, Tensor, Tensor]


def svd(
    A: Tensor, *, compute_u: bool = True, canonical: bool = True, degenerate: str = "mask"
) -> Triple:
    """U (..., m, r) or None, S (..., r), Vh (..., r, n) with r = min(m, n)."""
    U, S, Vh = _decompose(A, None, compute_u, canonical, degenerate)
    return (U if compute_u else None), S, Vh


def svd_topk(
    A: Tensor,
    k: int,
    *,
    compute_u: bool = True,
    canonical: bool = True,
    degenerate: str = "mask",
) -> Triple:
    """The k largest triples. The forward computes them all; the gradient is that of the top k."""
    U, S, Vh = _decompose(A, k, compute_u, canonical, degenerate)
    return (U if compute_u else None), S, Vh


def svdvals(A: Tensor) -> Tensor:
    """S (..., r), descending."""
    return svd(A, compute_u=False, canonical=False)[1]


def eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues (..., n) and eigenvectors (..., n, n) of symmetric matrices."""
    values, vectors = _decompose_symmetric(A)
    return values, vectors


def align_singular_vectors(student: Tensor, teacher: Tensor) -> Tensor:
    """student (..., D, K'), teacher (..., D, k) -> (..., D, k). METHODS 5.3.

    Column j is the student vector whose |cosine| with teacher vector j is largest (the first of
    equals; not a bijection), with the sign that makes the cosine positive. The choice is constant.
    """
    cosine = _check.constant(student).mT @ _check.constant(teacher)
    best = cosine.abs().argmax(-2, keepdim=True)
    chosen = student.gather(-1, best.expand(*student.shape[:-1], -1))
    return torch.where(cosine.gather(-2, best) < 0, -chosen, chosen)


def _svd(
    A: Tensor, k: int | None, compute_u: bool, canonical: bool, degenerate: str
) -> tuple[Tensor, Tensor, Tensor]:
    """U (no columns if unwanted), S, Vh."""
    U, S, Vh = safe_svd(A)
    U, S, Vh = U[..., : k if compute_u else 0], S[..., :k], Vh[..., :k, :]
    if canonical:
        sign = canonical_signs(Vh)
        Vh = Vh * sign.unsqueeze(-1)
        U = U * sign.unsqueeze(-2) if compute_u else U
    return U.contiguous(), S.contiguous(), Vh.contiguous()


def _fake_svd(
    A: Tensor, k: int | None, compute_u: bool, canonical: bool, degenerate: str
) -> tuple[Tensor, Tensor, Tensor]:
    *batch, m, n = A.shape
    k = min(m, n) if k is None else k
    U = A.new_empty((*batch, m, k if compute_u else 0))
    return U, A.new_empty((*batch, k)), A.new_empty((*batch, k, n))


def _svd_setup(ctx: Any, inputs: Any, output: Any) -> None:
    A, ctx.k, ctx.compute_u, _, ctx.degenerate = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(A, *output)


def _svd_backward(ctx: Any, gU: Any, gS: Any, gVh: Any) -> Any:
    A, U, S, Vh = ctx.saved_tensors
    if not ctx.compute_u:
        gU, U = None, None
    if gU is None and gS is None and gVh is None:
        return None, None, None, None, None
    if ctx.k is not None:
        gA = svd_topk_backward(gU, gS, gVh, A, U, S, Vh, ctx.degenerate)
    else:
        U = left_vectors(A, S, Vh) if U is None else U
        gA = svd_backward(gU, gS, gVh, U, S, Vh, ctx.degenerate)
    return gA, None, None, None, None


def _fake_eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    return A.new_empty(A.shape[:-1]), A.new_empty(A.shape)


def _eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues, eigenvectors as columns."""
    values, vectors = safe_eigh(A)
    return values.contiguous(), vectors.contiguous()


def _eigh_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output)


def _eigh_backward(ctx: Any, gvalues: Any, gvectors: Any) -> Any:
    if gvalues is None and gvectors is None:
        return None
    return eigh_backward(gvalues, gvectors, *ctx.saved_tensors)


_decompose = python_op(
    "svd(Tensor A, int? k, bool compute_u, bool canonical, str degenerate)"
    " -> (Tensor, Tensor, Tensor)",
    _svd,
    fake=_fake_svd,
    setup=_svd_setup,
    backward=_svd_backward,
)
_decompose_symmetric = python_op(
    "eigh(Tensor A) -> (Tensor, Tensor)",
    _eigh,
    fake=_fake_eigh,
    setup=_eigh_setup,
    backward=_eigh_backward,
)
