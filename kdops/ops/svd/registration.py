"""The svd ops: their shapes, gradients and backends.

The backward of the top-k op is fused, and so is that of the full SVD where the device has a kernel
for it; elsewhere, and for eigh, it is the formula in batched matrix products.
Cotangents that nobody sent stay None and cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdops import _library
from kdops._autograd import custom_op, gradient_op
from kdops._op import Kernel, Op
from kdops._vmap import leading_vmap
from kdops.ops.svd import gradient, reference
from kdops.ops.svd.limits import (
    KRYLOV_FROM_SMALL_SIDE,
    LARGEST_KRYLOV_K,
    LARGEST_SMALL_SIDE,
    LARGEST_TOPK_ON_CUDA,
    largest_k,
    saved_rows,
)


def _devices_with(op: str) -> tuple[str, ...]:
    """The device types for which the binary holds a kernel of `op`."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return tuple(d for d in ("cpu", "cuda") if has(f"kdops::{op}", d.upper()))


_FUSED_GRADIENT = () if _library.missing else _devices_with("svd_backward")


def _full_limit(device: str, dtype: torch.dtype, m: int, n: int) -> str | None:
    return _too_large(min(m, n), LARGEST_SMALL_SIDE)


def _topk_limit(device: str, dtype: torch.dtype, m: int, n: int, k: int = 1) -> str | None:
    p = min(m, n)
    if k > largest_k(p):
        return f"the kernels take k <= {largest_k(p)}, not {k}"
    return _too_large(p, LARGEST_TOPK_ON_CUDA) if device == "cuda" else None


def _too_large(p: int, largest: int) -> str | None:
    return f"the kernels take min(m, n) <= {largest}, not {p}" if p > largest else None


def _topk_route(backend: str, device: str, dtype: torch.dtype, m: int, n: int, k: int = 1) -> str:
    """Where a matrix does not suit the route, the kernels take another for it, inside the call."""
    if backend != "native":
        return "all triples by torch.linalg.svd, of which k are kept"
    krylov_from = KRYLOV_FROM_SMALL_SIDE if device == "cpu" else LARGEST_SMALL_SIDE + 1
    if min(m, n) >= krylov_from and k <= LARGEST_KRYLOV_K:
        return "block Krylov on the Gram matrix"
    return "tridiagonalisation of the Gram matrix"


def policy(lorentz: bool) -> str:
    """The Python name of the flag that the ops carry."""
    return "lorentz" if lorentz else "mask"


# ---- shapes -------------------------------------------------------------------------------------


def _triple(A: Tensor, k: int, compute_u: bool) -> tuple[Tensor, Tensor, Tensor]:
    *batch, m, n = A.shape
    U = A.new_empty((*batch, m, k if compute_u else 0))
    return U, A.new_empty((*batch, k)), A.new_empty((*batch, k, n))


def _fake_svd(
    A: Tensor, compute_u: bool, canonical: bool, fast: bool, lorentz: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _triple(A, min(A.shape[-2:]), compute_u)


def _fake_topk(
    A: Tensor, k: int, compute_u: bool, canonical: bool, lorentz: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    p = min(A.shape[-2:])
    return *_triple(A, k, compute_u), A.new_empty((*A.shape[:-2], saved_rows(p, k), p))


def _fake_svd_backward(
    gU: Tensor | None,
    gS: Tensor | None,
    gVh: Tensor | None,
    U: Tensor,
    S: Tensor,
    Vh: Tensor,
    lorentz: bool,
) -> Tensor:
    return U.new_empty((*U.shape[:-1], Vh.shape[-1]))


def _fake_topk_backward(
    gU: Tensor | None, gS: Tensor | None, gVh: Tensor | None, A: Tensor, *others: Any
) -> Tensor:
    # the kernels read matrices that lie column by column, and answer likewise
    if not A.is_contiguous() and A.mT.is_contiguous():
        return A.new_empty(A.mT.shape).mT
    return A.new_empty(A.shape)


def _fake_svdvals(A: Tensor) -> Tensor:
    return A.new_empty((*A.shape[:-2], min(A.shape[-2:])))


def _fake_eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    return A.new_empty(A.shape[:-1]), A.new_empty(A.shape)


# ---- gradients ----------------------------------------------------------------------------------


def _svd_setup(ctx: Any, inputs: Any, output: Any) -> None:
    A, *ctx.options = inputs
    U, S, Vh = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(U if inputs[1] else A, S, Vh)


def _svd_backward(ctx: Any, gU: Any, gS: Any, gVh: Any) -> Any:
    U, S, Vh = ctx.saved_tensors
    compute_u, *_, lorentz = ctx.options
    if not compute_u:
        gU, U = None, gradient.left_vectors(U, S, Vh)
    gA = None
    if not (gU is None and gS is None and gVh is None):
        gA = _full_gradient(gU, gS, gVh, U, S, Vh, lorentz)
    return gA, None, None, None, None


def _full_gradient(
    gU: Tensor | None,
    gS: Tensor | None,
    gVh: Tensor | None,
    U: Tensor,
    S: Tensor,
    Vh: Tensor,
    lorentz: bool,
) -> Tensor:
    if U.device.type in _FUSED_GRADIENT:
        gA: Tensor = SVD_BACKWARD.run(gU, gS, gVh, U, S, Vh, lorentz)
        return gA
    return gradient.svd_backward(gU, gS, gVh, U, S, Vh, policy(lorentz))


def _full_formula(*values: Any) -> Tensor:
    *tensors, lorentz = values
    return gradient.svd_backward(*tensors, policy(lorentz))


def _topk_setup(ctx: Any, inputs: Any, output: Any) -> None:
    A, _, ctx.compute_u, _, ctx.lorentz = inputs
    ctx.mark_non_differentiable(output[3])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(A, *output)


def _topk_backward(ctx: Any, gU: Any, gS: Any, gVh: Any, _: Any) -> Any:
    gU = gU if ctx.compute_u else None
    gA = None
    if not (gU is None and gS is None and gVh is None):
        gA = TOPK_BACKWARD.run(gU, gS, gVh, *ctx.saved_tensors, ctx.lorentz)
    return gA, None, None, None, None


def _topk_formula(*values: Any) -> Tensor:
    gU, gS, gVh, A, U, S, Vh, _, lorentz = values
    left = U if U.shape[-1] else None
    return gradient.svd_topk_backward(gU, gS, gVh, A, left, S, Vh, policy(lorentz))


def _svdvals_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _svdvals_backward(ctx: Any, gS: Tensor) -> Tensor:
    (A,) = ctx.saved_tensors
    U, S, Vh = SVD.run(A, True, False, False, False)
    return _full_gradient(None, gS, None, U, S, Vh, False)


def _eigh_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output)


def _eigh_backward(ctx: Any, gvalues: Any, gvectors: Any) -> Any:
    if gvalues is None and gvectors is None:
        return None
    return gradient.eigh_backward(gvalues, gvectors, *ctx.saved_tensors)


def _of_all(
    name: str,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    setup: Callable[..., None],
    backward: Callable[..., Any],
) -> Op:
    """An op that finds all values or triples."""
    return Op(
        name,
        fake=fake,
        derivative=partial(custom_op, setup=setup, backward=backward, vmap=leading_vmap),
        reference=reference,
        limit=_full_limit,
        typical_sizes=(64, 64),
    )


SVD = _of_all("svd", reference.svd, _fake_svd, _svd_setup, _svd_backward)
SVDVALS = _of_all("svdvals", reference.svdvals, _fake_svdvals, _svdvals_setup, _svdvals_backward)
EIGH = _of_all("eigh", reference.eigh, _fake_eigh, _eigh_setup, _eigh_backward)
TOPK = Op(
    "svd_topk",
    fake=_fake_topk,
    derivative=partial(custom_op, setup=_topk_setup, backward=_topk_backward, vmap=leading_vmap),
    reference=reference.svd_topk,
    limit=_topk_limit,
    route=_topk_route,
    typical_sizes=(1024, 64, 4),
)
SVD_BACKWARD = Kernel(
    "svd_backward",
    fake=_fake_svd_backward,
    derivative=partial(gradient_op, formula=_full_formula, vmap=leading_vmap),
)
TOPK_BACKWARD = Kernel(
    "svd_topk_backward",
    fake=_fake_topk_backward,
    derivative=partial(gradient_op, formula=_topk_formula, vmap=leading_vmap),
)
