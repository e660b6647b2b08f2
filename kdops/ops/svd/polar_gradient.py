"""Polar factors and nuclear norm out of the singular triples, with gradients of any order.

A = U diag(S) Vh is the thin decomposition, r = min(m, n) and V = Vh^T. The triples come from
whichever backend decomposes; here they are constants. P = U Vh and H = V diag(S) Vh are functions
of A alone, and their derivatives are written with P, H and solves of H X + X H = C, never with
those of U or V: the divisors are sums s_i + s_j, and equal values need no policy.

**Derivation.** With F = U^T dA V inside the two spaces, E = (I - U U^T) dA V and
D = U^T dA (I - V V^T) outside (E = 0 if m <= n, D = 0 if m >= n), dA = dP H + P dH gives

    U^T dP V = (F_ij - F_ji) / (s_i + s_j)          V^T dH V = (s_i F_ij + s_j F_ji) / (s_i + s_j)
    dP outside = E diag(1/s) Vh + U diag(1/s) D     dH outside = V D + D^T V^T

**Zeros.** Values up to r eps s_1 count as zero. A divisor that is zero is left out, so that P has
gradient zero along pairs of zeros, and H and the norm have there the subgradient of smallest size,
as |x| has at x = 0: that of the norm is sum u_i v_i^T over the values that are not zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdops._autograd import pull_back, python_op
from kdops._maths import least_unit
from kdops._saved import save, saved

Pair = tuple[Tensor, Tensor]


def _relative(S: Tensor) -> Pair:
    """S / s_1 with what counts as zero made zero, and the unit s_1 (..., 1), 1 for A = 0."""
    unit = torch.where(S[..., :1] == 0, 1, S[..., :1])
    ratio = S / unit
    return torch.where(ratio <= S.shape[-1] * torch.finfo(S.dtype).eps, 0, ratio), unit


def _inverse(x: Tensor) -> Tensor:
    """1/x, and 0 for 0."""
    zero = x == 0
    return torch.where(zero, 0, 1 / torch.where(zero, 1, x))


def _over(inverse: Tensor, unit: Tensor) -> Tensor:
    """inverse / unit, 0 where the unit counts as zero; nothing overflows."""
    nothing = unit < least_unit(unit.dtype)
    return torch.where(nothing, 0, inverse / torch.where(nothing, 1, unit))


def _weights(S: Tensor, kind: str) -> Tensor:
    """What `solve` multiplies entry (i, j) with, in the basis of the vectors of H.

    "pair": 1 / (s_i + s_j); "share": s_i / (s_i + s_j); "column": 1 / s_j.
    """
    ratio, unit = _relative(S)
    if kind == "column":
        return _over(_inverse(ratio), unit).unsqueeze(-2)
    inverse = _inverse(ratio.unsqueeze(-1) + ratio.unsqueeze(-2))
    if kind == "share":
        return ratio.unsqueeze(-1) * inverse
    return _over(inverse, unit.unsqueeze(-1))


def _symmetric(X: Tensor) -> Tensor:
    half = X / 2  # twice the largest entry may be no number
    return half + half.mT


# ---- first order, from the triples ---------------------------------------------------------------


def _polar(A: Tensor, U: Tensor, S: Tensor, Vh: Tensor) -> Pair:
    return U @ Vh, _symmetric((Vh.mT * S.unsqueeze(-2)) @ Vh)


def _polar_backward(
    gP: Tensor | None, gH: Tensor | None, P: Tensor, H: Tensor, U: Tensor, S: Tensor, Vh: Tensor
) -> Tensor:
    """gA: the coefficients of F, E and D in <gP, dP> + <gH, dH>, with X = U^T gP V and
    Y = V^T (gH + gH^T) V / 2

        core_ij = (X_ij - X_ji) / (s_i + s_j) + 2 Y_ij s_i / (s_i + s_j)
        gA = U core Vh + (I - U U^T) gP V diag(1/s) Vh
           + U [diag(1/s) U^T gP + V^T (gH + gH^T)] (I - V V^T)
    """
    (m, n), r, V = P.shape[-2:], S.shape[-1], Vh.mT
    core, outside = S.new_zeros(()), None
    if gP is not None:
        X = U.mT @ gP @ V
        core = core + (X - X.mT) * _weights(S, "pair")
        if n > r:
            outside = _weights(S, "column").mT * (U.mT @ gP - X @ Vh)
    if gH is not None:
        rows = 2 * Vh @ _symmetric(gH)
        Y = rows @ V
        core = core + Y * _weights(S, "share")
        if n > r:
            lost = torch.where(_relative(S)[0].unsqueeze(-1) == 0, 0, rows - Y @ Vh)
            outside = lost if outside is None else outside + lost
    left = U @ core
    if gP is not None and m > r:
        left = left + (gP @ V - U @ X) * _weights(S, "column")
    gA = left @ Vh
    return gA if outside is None else gA + U @ outside


def _norm_backward(g: Tensor, A: Tensor, U: Tensor, S: Tensor, Vh: Tensor) -> Tensor:
    scale = torch.where(_relative(S)[0] == 0, 0, g.unsqueeze(-1))
    return (U * scale.unsqueeze(-2)) @ Vh


# ---- any order, from P and H ---------------------------------------------------------------------


def _formula(
    gP: Tensor | None, gH: Tensor | None, P: Tensor, H: Tensor, U: Tensor, S: Tensor, Vh: Tensor
) -> Tensor:
    """_polar_backward as a function of the cotangents and of P and H, whose derivatives are right.

    The core is taken in the space of the smaller side: H itself if m >= n, else P H P^T.
    """
    m, n = P.shape[-2:]
    if m < n:
        return _wide_formula(gP, gH, P, P @ H @ P.mT, U.mT, S)
    core: Tensor = H.new_zeros(())
    if gH is not None:
        core = core + 2 * solve(H, _symmetric(gH), Vh, S, "share")
    if gP is None:
        return P @ core
    X = P.mT @ gP
    core = core + solve(H, X - X.mT, Vh, S, "pair")
    outside: Tensor = solve(H, gP - P @ X, Vh, S, "column")
    return P @ core + outside


def _wide_formula(
    gP: Tensor | None, gH: Tensor | None, P: Tensor, K: Tensor, rows: Tensor, S: Tensor
) -> Tensor:
    """K (..., m, m) = P H P^T, the factor of A = K P; its vectors are the rows of U^T."""
    core, outside = K.new_zeros(()), K.new_zeros(())
    if gH is not None:
        across = P @ _symmetric(gH)
        inside = across @ P.mT
        core = core + 2 * solve(K, inside, rows, S, "share")
        identity = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device).expand(K.shape)
        kept = 2 * solve(K, identity, rows, S, "share")  # projects on the values that are not zero
        outside = outside + 2 * kept @ (across - inside @ P)
    if gP is not None:
        X = gP @ P.mT
        core = core + solve(K, X - X.mT, rows, S, "pair")
        outside = outside + solve(K, (gP - X @ P).mT, rows, S, "column").mT
    return core @ P + outside


def _norm_formula(g: Tensor, A: Tensor, U: Tensor, S: Tensor, Vh: Tensor) -> Tensor:
    """The norm is the trace of H."""
    P, H = polar(A, U, S, Vh)
    gH = g[..., None, None] * torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    return _formula(None, gH, P, H, U, S, Vh)


def _solve(H: Tensor, C: Tensor, rows: Tensor, S: Tensor, kind: str) -> Tensor:
    """X with H X + X H = C ("pair") or = H C ("share"), or X H = C ("column").

    H = rows^T diag(S) rows. Differentiating the equation, with Z the solve of the cotangent gX:

        pair:    gC = Z                     gH = -Z X^T - X^T Z
        share:   gC = the share of gX       gH = Z C^T - Z X^T - X^T Z, Z the pair's
        column:  gC = Z                     gH = -X^T Z
    """
    C = C @ rows.mT if kind == "column" else rows @ C @ rows.mT
    X = C * _weights(S, kind)
    return X @ rows if kind == "column" else rows.mT @ X @ rows


def _solve_setup(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.kind = inputs
    ctx.save_for_backward(*tensors, output)


def _solve_backward(ctx: Any, gX: Tensor) -> Any:
    H, C, rows, S, X = ctx.saved_tensors
    if ctx.kind == "column":
        Z = solve(H, gX, rows, S, "column")
        return -X.mT @ Z, Z, None, None, None
    Z = solve(H, gX, rows, S, "pair")
    gH = -Z @ X.mT - X.mT @ Z
    if ctx.kind == "pair":
        return gH, Z, None, None, None
    return gH + Z @ C.mT, solve(H, gX, rows, S, "share"), None, None, None


# ---- what torch must know ------------------------------------------------------------------------


def _save_inputs(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    save(ctx, inputs)


def _polar_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output, *inputs[1:])


def _pull_polar(ctx: Any, gP: Any, gH: Any) -> Any:
    gA = None
    if not (gP is None and gH is None):
        gA = polar_backward(gP, gH, *ctx.saved_tensors)
    return gA, None, None, None


def _pull_norm(ctx: Any, g: Any) -> Any:
    return None if g is None else norm_backward(g, *saved(ctx)), None, None, None


def _pull_by(formula: Callable[..., Tensor]) -> Callable[..., Any]:
    """The backward of an op that ends with the triples, by the formula for its other inputs."""

    def backward(ctx: Any, cotangent: Any) -> Any:
        *inputs, U, S, Vh = saved(ctx)

        def of_others(*others: Any) -> Tensor:
            return formula(*others, U, S, Vh)

        return *pull_back(of_others, inputs, [cotangent]), None, None, None

    return backward


def _fake_like_u(*values: Any) -> Tensor:
    *_, U, _S, Vh = values
    fake: Tensor = U.new_empty((*U.shape[:-1], Vh.shape[-1]))
    return fake


solve: Callable[..., Any] = python_op(
    "polar_solve(Tensor H, Tensor C, Tensor rows, Tensor S, str kind) -> Tensor",
    _solve,
    fake=lambda H, C, *others: C.new_empty(C.shape),
    setup=_solve_setup,
    backward=_solve_backward,
)
polar: Callable[..., Any] = python_op(
    "polar(Tensor A, Tensor U, Tensor S, Tensor Vh) -> (Tensor, Tensor)",
    _polar,
    fake=lambda A, U, S, Vh: (
        A.new_empty(A.shape),
        A.new_empty((*A.shape[:-2], A.shape[-1], A.shape[-1])),
    ),
    setup=_polar_setup,
    backward=_pull_polar,
)
polar_backward: Callable[..., Any] = python_op(
    "polar_backward(Tensor? gP, Tensor? gH, Tensor P, Tensor H, Tensor U, Tensor S, Tensor Vh)"
    " -> Tensor",
    _polar_backward,
    fake=_fake_like_u,
    setup=_save_inputs,
    backward=_pull_by(_formula),
)
nuclear_norm: Callable[..., Any] = python_op(
    "nuclear_norm(Tensor A, Tensor U, Tensor S, Tensor Vh) -> Tensor",
    lambda A, U, S, Vh: S.sum(-1),
    fake=lambda A, U, S, Vh: S.new_empty(S.shape[:-1]),
    setup=_save_inputs,
    backward=_pull_norm,
)
norm_backward: Callable[..., Any] = python_op(
    "nuclear_norm_backward(Tensor g, Tensor A, Tensor U, Tensor S, Tensor Vh) -> Tensor",
    _norm_backward,
    fake=_fake_like_u,
    setup=_save_inputs,
    backward=_pull_by(_norm_formula),
)
