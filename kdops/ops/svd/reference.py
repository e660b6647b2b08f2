"""The decompositions in plain PyTorch: torch.linalg, made batch-safe, with our own gradients.

Runs on any device, in float32 and float64 (callers bring half types to float32). The autograd of
torch.linalg is not used: it is NaN wherever two values are equal or one is zero, even where the
loss does not care. mode="fast" is eigh of the Gram matrix; a few triples are always accurate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops._autograd import python_op
from kdops.ops.svd.gradient import eigh_backward, left_vectors, svd_backward, svd_topk_backward
from kdops.ops.svd.linalg import safe_eigh, safe_svd, safe_svdvals

Triple = tuple[Tensor | None, Tensor, Tensor]


def svd(
    A: Tensor,
    *,
    compute_u: bool = True,
    canonical: bool = True,
    degenerate: str = "mask",
    fast: bool = False,
) -> Triple:
    """U (..., m, r) or None, S (..., r), Vh (..., r, n) with r = min(m, n)."""
    U, S, Vh = _decompose(A, compute_u, canonical, degenerate, fast)
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
    U, S, Vh, *_ = _decompose_topk(A, k, compute_u, canonical, degenerate)
    return (U if compute_u else None), S, Vh


def svdvals(A: Tensor) -> Tensor:
    """S (..., r), descending."""
    values: Tensor = _values(A)
    return values


def eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues (..., n) and eigenvectors (..., n, n) of symmetric matrices."""
    values, vectors = _decompose_symmetric(A)
    return values, vectors


def _svd(
    A: Tensor, compute_u: bool, canonical: bool, degenerate: str, fast: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """U (no columns if unwanted), S, Vh."""
    U, S, Vh = safe_svd(A, canonical, fast)
    return U[..., : None if compute_u else 0].contiguous(), S.contiguous(), Vh.contiguous()


def _fake_svd(
    A: Tensor, compute_u: bool, canonical: bool, degenerate: str, fast: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _triple(A, min(A.shape[-2:]), compute_u)


def _triple(A: Tensor, k: int, compute_u: bool) -> tuple[Tensor, Tensor, Tensor]:
    *batch, m, n = A.shape
    U = A.new_empty((*batch, m, k if compute_u else 0))
    return U, A.new_empty((*batch, k)), A.new_empty((*batch, k, n))


def _svd_setup(ctx: Any, inputs: Any, output: Any) -> None:
    A, ctx.compute_u, _, ctx.degenerate, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(A, *output)


def _svd_backward(ctx: Any, gU: Any, gS: Any, gVh: Any) -> Any:
    A, U, S, Vh = ctx.saved_tensors
    if not ctx.compute_u:
        gU, U = None, left_vectors(A, S, Vh)
    gA = None
    if not (gU is None and gS is None and gVh is None):
        gA = svd_backward(gU, gS, gVh, U, S, Vh, ctx.degenerate)
    return gA, None, None, None, None


def _topk(
    A: Tensor, k: int, compute_u: bool, canonical: bool, degenerate: str
) -> tuple[Tensor, ...]:
    """U, S, Vh of k triples, and for the gradient all values (..., r) and all the vectors of the
    smaller side as rows (..., r, r)."""
    U, S, Vh = safe_svd(A, canonical)
    top = (U[..., : k if compute_u else 0], S[..., :k], Vh[..., :k, :])
    small = Vh if A.shape[-1] <= A.shape[-2] else U.mT
    # an op's results are memory of their own
    return (*(x.clone(memory_format=torch.contiguous_format) for x in (*top, S, small)),)


def _fake_topk(
    A: Tensor, k: int, compute_u: bool, canonical: bool, degenerate: str
) -> tuple[Tensor, ...]:
    batch, r = A.shape[:-2], min(A.shape[-2:])
    return *_triple(A, k, compute_u), A.new_empty((*batch, r)), A.new_empty((*batch, r, r))


def _topk_setup(ctx: Any, inputs: Any, output: Any) -> None:
    A, _, ctx.compute_u, _, ctx.degenerate = inputs
    ctx.mark_non_differentiable(*output[3:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(A, *output)


def _topk_backward(ctx: Any, gU: Any, gS: Any, gVh: Any, *_: Any) -> Any:
    A, U, S, Vh, values, small = ctx.saved_tensors
    if not ctx.compute_u:
        gU, U = None, None
    gA = None
    if not (gU is None and gS is None and gVh is None):
        gA = svd_topk_backward(gU, gS, gVh, A, U, S, Vh, ctx.degenerate, values, small)
    return gA, None, None, None, None


def _values_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _values_backward(ctx: Any, gS: Tensor) -> Tensor:
    """The vectors, which only the gradient needs, are computed here."""
    (A,) = ctx.saved_tensors
    U, S, Vh = _decompose(A, True, False, "mask", False)
    gA: Tensor = svd_backward(None, gS, None, U, S, Vh, "mask")
    return gA


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
    "svd(Tensor A, bool compute_u, bool canonical, str degenerate, bool fast)"
    " -> (Tensor, Tensor, Tensor)",
    _svd,
    fake=_fake_svd,
    setup=_svd_setup,
    backward=_svd_backward,
)
_decompose_topk = python_op(
    "svd_topk(Tensor A, int k, bool compute_u, bool canonical, str degenerate)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _topk,
    fake=_fake_topk,
    setup=_topk_setup,
    backward=_topk_backward,
)
_values = python_op(
    "svdvals(Tensor A) -> Tensor",
    safe_svdvals,
    fake=lambda A: A.new_empty((*A.shape[:-2], min(A.shape[-2:]))),
    setup=_values_setup,
    backward=_values_backward,
)
_decompose_symmetric = python_op(
    "eigh(Tensor A) -> (Tensor, Tensor)",
    _eigh,
    fake=lambda A: (A.new_empty(A.shape[:-1]), A.new_empty(A.shape)),
    setup=_eigh_setup,
    backward=_eigh_backward,
)
