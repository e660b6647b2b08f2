"""The decompositions in plain PyTorch: torch.linalg, made batch-safe, with our own gradients.

Runs on any device, in float32 and float64 (callers bring half types to float32). The autograd of
torch.linalg is not used: it is NaN wherever two values are equal or one is zero, even where the
loss does not care. mode="fast" has no meaning here: the reference is always accurate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdops import _check
from kdops.ops.svd.gradient import eigh_backward, left_vectors, svd_backward, svd_topk_backward
from kdops.ops.svd.linalg import canonical_signs, safe_eigh, safe_svd, safe_svdvals

Triple = tuple[Tensor | None, Tensor, Tensor]


def svd(
    A: Tensor, *, compute_u: bool = True, canonical: bool = True, degenerate: str = "mask"
) -> Triple:
    """U (..., m, r) or None, S (..., r), Vh (..., r, n) with r = min(m, n)."""
    U, S, Vh = _decompose(A, compute_u, canonical, degenerate)
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


def align_singular_vectors(student: Tensor, teacher: Tensor) -> Tensor:
    """student (..., D, K'), teacher (..., D, k) -> (..., D, k). METHODS 5.3.

    Column j is the student vector whose |cosine| with teacher vector j is largest (the first of
    equals; not a bijection), with the sign that makes the cosine positive. The choice is constant.
    """
    cosine = _check.constant(student).mT @ _check.constant(teacher)
    best = cosine.abs().argmax(-2, keepdim=True)
    chosen = student.gather(-1, best.expand(*student.shape[:-1], -1))
    return torch.where(cosine.gather(-2, best) < 0, -chosen, chosen)


def _to_front(x: Tensor, dim: int | None) -> Tensor:
    return x if dim is None else x.movedim(dim, 0)


def _signed_svd(A: Tensor, canonical: bool) -> tuple[Tensor, Tensor, Tensor]:
    U, S, Vh = safe_svd(A)
    if not canonical:
        return U, S, Vh
    sign = canonical_signs(Vh)
    return U * sign.unsqueeze(-2), S, Vh * sign.unsqueeze(-1)


class ReferenceSVD(torch.autograd.Function):
    """(A, compute_u, canonical, degenerate) -> U (no columns if unwanted), S, Vh."""

    @staticmethod
    def forward(
        A: Tensor, compute_u: bool, canonical: bool, degenerate: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        U, S, Vh = _signed_svd(A, canonical)
        return U[..., : None if compute_u else 0].contiguous(), S, Vh.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        A, ctx.compute_u, _, ctx.degenerate = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(A, *output)

    @staticmethod
    def backward(ctx: Any, gU: Any, gS: Any, gVh: Any) -> Any:
        A, U, S, Vh = ctx.saved_tensors
        if not ctx.compute_u:
            gU, U = None, left_vectors(A, S, Vh)
        gA = None
        if not (gU is None and gS is None and gVh is None):
            gA = svd_backward(gU, gS, gVh, U, S, Vh, ctx.degenerate)
        return gA, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, A: Tensor, *options: Any) -> Any:
        return _decompose(_to_front(A, in_dims[0]), *options), (0, 0, 0)


class ReferenceTopk(torch.autograd.Function):
    """(A, k, compute_u, canonical, degenerate) -> U, S, Vh as above, of k triples, and for the
    gradient all the singular values (..., r) and all the vectors of the smaller side as rows."""

    @staticmethod
    def forward(
        A: Tensor, k: int, compute_u: bool, canonical: bool, degenerate: str
    ) -> tuple[Tensor, ...]:
        U, S, Vh = _signed_svd(A, canonical)
        top = (U[..., : k if compute_u else 0], S[..., :k], Vh[..., :k, :])
        small = Vh if A.shape[-1] <= A.shape[-2] else U.mT
        return (*(x.contiguous() for x in top), S.clone(), small.clone())

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        A, _, ctx.compute_u, _, ctx.degenerate = inputs
        ctx.mark_non_differentiable(*output[3:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(A, *output)

    @staticmethod
    def backward(ctx: Any, gU: Any, gS: Any, gVh: Any, *_: Any) -> Any:
        A, U, S, Vh, values, small = ctx.saved_tensors
        if not ctx.compute_u:
            gU, U = None, None
        gA = None
        if not (gU is None and gS is None and gVh is None):
            known = (values, small)
            gA = svd_topk_backward(gU, gS, gVh, A, U, S, Vh, ctx.degenerate, *known)
        return gA, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, A: Tensor, *options: Any) -> Any:
        return _decompose_topk(_to_front(A, in_dims[0]), *options), (0,) * 5


class ReferenceValues(torch.autograd.Function):
    """A -> S. The vectors, which only the gradient needs, are computed there."""

    @staticmethod
    def forward(A: Tensor) -> Tensor:
        return safe_svdvals(A)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gS: Tensor) -> Tensor:
        (A,) = ctx.saved_tensors
        U, S, Vh = _decompose(A, True, False, "mask")
        gA: Tensor = svd_backward(None, gS, None, U, S, Vh, "mask")
        return gA

    @staticmethod
    def vmap(info: Any, in_dims: Any, A: Tensor) -> Any:
        return _values(_to_front(A, in_dims[0])), 0


class ReferenceEigh(torch.autograd.Function):
    """A -> ascending eigenvalues, eigenvectors as columns."""

    @staticmethod
    def forward(A: Tensor) -> tuple[Tensor, Tensor]:
        return safe_eigh(A)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, gvalues: Any, gvectors: Any) -> Any:
        if gvalues is None and gvectors is None:
            return None
        return eigh_backward(gvalues, gvectors, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: Any, A: Tensor) -> Any:
        return _decompose_symmetric(_to_front(A, in_dims[0])), (0, 0)


_decompose: Callable[..., Any] = ReferenceSVD.apply
_decompose_topk: Callable[..., Any] = ReferenceTopk.apply
_values: Callable[..., Any] = ReferenceValues.apply
_decompose_symmetric: Callable[..., Any] = ReferenceEigh.apply
