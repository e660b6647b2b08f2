"""Gradients of the singular value and eigenvalue decompositions, as pure functions of tensors.

Notation: A = U diag(S) Vh with V = Vh^T, gX the cotangent of X (None: zero), r = min(m, n).
skew(X) = (X - X^T) / 2. Every function is differentiable itself, so second order comes for free.

**Gauge.** A pair (u, v) is defined up to a common sign, and a cluster of equal values up to a
common rotation. The canonical sign is locally constant: it passes no gradient.

**Degenerate policies.** The formulas divide by s_j - s_i, s_j + s_i and s_i. Relative to the
largest value s_1, with tau = 8 sqrt(r) eps(dtype), a divisor x becomes

    "mask"     0 if |x| <= tau, else 1/x      exact for functions of S and of a cluster's projectors
    "lorentz"  x / (x^2 + tau^2)              smooth in x; biased by (tau / x)^2

Neither is exact for a loss that joins u_i with v_j inside a cluster, as one of U S Vh: there the
numerator vanishes with the divisor, and what the two make together is left out. So tau is no larger
than it must be: rounding splits equal values by up to 5 sqrt(r) eps, and below that a projector's
numerator, which is rounding, would be divided by rounding.

Every result is finite, and a zero cotangent contributes exactly zero (never 0 * inf). A matrix with
s_1 < tiny / eps (1e-31 in float32) counts as zero: its vectors pass no gradient.
No entry of A, S or a cotangent is squared unscaled: inputs of size 1e-20 or 1e20 survive in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdops._autograd import python_op
from kdops._maths import least_unit, power_of_two_scale
from kdops._precision import in_full_precision
from kdops.ops.svd.linalg import safe_svd, scale_of

DEGENERATE_POLICIES = ("mask", "lorentz")


def _inverse(x: Tensor, unit: Tensor, tau: float, degenerate: str) -> Tensor:
    """1/x under the policy; x and its threshold tau are relative to unit, the result is not.

    A unit below least_unit counts as zero. Above it nothing overflows: a zero cotangent meets no
    infinity.
    """
    nothing = unit < least_unit(x.dtype)
    unit = torch.where(nothing, 1, unit)
    return torch.where(nothing, 0, _reciprocal(x / unit, tau, degenerate) / unit)


def _reciprocal(x: Tensor, tau: Tensor | float, degenerate: str) -> Tensor:
    """1/x under the policy, x in units in which it is at most of size one."""
    if degenerate == "lorentz":
        return x / (x * x + tau * tau)
    return x.masked_fill(x.abs() <= tau, torch.inf).reciprocal()


def _threshold(S: Tensor, r: int) -> float:
    """tau: values closer than that, in units of the largest, count as equal (csrc: closeness)."""
    return 8 * math.sqrt(r) * torch.finfo(S.dtype).eps


def _in_units(values: Tensor, largest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a matrix of pairs is made of in few passes: the values (..., n) times a power of two,
    their largest (..., 1, 1) likewise, and that power (..., 1, 1). Below least_unit all values
    count as zero: the largest is 1 then, and the power 0."""
    unit = power_of_two_scale(largest)
    nothing = largest < least_unit(values.dtype)
    return (
        values * unit[..., 0],
        torch.where(nothing, 1, largest * unit),
        torch.where(nothing, 0, unit),
    )


@in_full_precision
def left_vectors(A: Tensor, S: Tensor, Vh: Tensor) -> Tensor:
    """U = A V / s for a call that did not compute it; zero columns where s is zero.

    Those columns are harmless: without a cotangent for U, the gradient's coefficient of u_i is
    proportional to s_i.
    """
    scale = scale_of(A)  # does not change U
    A, S = A * scale, S * scale[..., 0]
    inverse = _inverse(S, S[..., :1], _threshold(S, min(A.shape[-2:])), "mask")
    return (A @ Vh.mT) * inverse.unsqueeze(-2)


@in_full_precision
def svd_backward(
    gU: Tensor | None,
    gS: Tensor | None,
    gVh: Tensor | None,
    U: Tensor,
    S: Tensor,
    Vh: Tensor,
    degenerate: str = "mask",
) -> Tensor:
    """gA (..., m, n) of the full thin SVD: U (..., m, r), S (..., r), Vh (..., r, n).

    With dU = U P + (outside U), dV = V Q + (outside V), P and Q antisymmetric, and F = U^T dA V:

        F = P diag(s) + diag(ds) - diag(s) Q
        F_ij + F_ji = (s_j - s_i) (P + Q)_ij        F_ij - F_ji = (s_j + s_i) (P - Q)_ij

    Let a = skew(U^T gU), b = skew(V^T gV). Then <gU, dU> + <gV, dV> inside the two spaces is
    <a, P> + <b, Q> = <a + b, P + Q>/2 + <a - b, P - Q>/2, so the coefficient of F_ij is

        core_ij = (a + b)_ij / (s_j - s_i) + (a - b)_ij / (s_j + s_i),    core_ii = gS_i

    Only the first term is singular at repeated values, only the second at two zero values: the
    usual form with 1/(s_j^2 - s_i^2) is singular at both and squares. Outside the two spaces
    (m > r or n > r) dU = (I - U U^T) dA V / s and dV = (I - V V^T) dA^T U / s. Together

        gA = U core Vh + (I - U U^T) gU diag(1/s) Vh + U diag(1/s) gVh (I - V V^T)
    """
    m, r, n = U.shape[-2], S.shape[-1], Vh.shape[-1]
    X = U.mT @ gU if gU is not None else None
    Y = Vh @ gVh.mT if gVh is not None else None
    core = _core(X, gS, Y, S, r, degenerate)
    inverse = _inverse(S, S[..., :1], _threshold(S, r), degenerate)
    # The projection outside U shares its product: (I - U U^T) gU/s = gU/s - U (X/s).
    if gU is not None and X is not None and m > r:
        left = U @ (core - X * inverse.unsqueeze(-2)) + gU * inverse.unsqueeze(-2)
    else:
        left = U @ core
    gA = left @ Vh
    if gVh is not None and Y is not None and n > r:
        gA = gA + U @ (inverse.unsqueeze(-1) * (gVh - Y.mT @ Vh))
    return gA


def _core(
    X: Tensor | None, gS: Tensor | None, Y: Tensor | None, S: Tensor, r: int, degenerate: str
) -> Tensor:
    """The coefficients of F = U^T dA V in svd_backward, from X = U^T gU and Y = V^T gV."""
    diagonal = torch.diag_embed(gS if gS is not None else torch.zeros_like(S))
    if X is None and Y is None:
        return diagonal
    s, largest, unit = _in_units(S, S[..., :1, None])
    tau = _threshold(S, r) * largest
    difference = _reciprocal(s.unsqueeze(-2) - s.unsqueeze(-1), tau, degenerate)
    total = _reciprocal(s.unsqueeze(-2) + s.unsqueeze(-1), tau, degenerate)
    if X is not None and Y is not None:
        a, b = X - X.mT, Y - Y.mT
        pairs = (a + b) * difference + (a - b) * total
    elif X is not None:
        pairs = (X - X.mT) * (difference + total)
    elif Y is not None:
        pairs = (Y - Y.mT) * (difference - total)
    return diagonal + (unit / 2) * pairs


@in_full_precision
def svd_topk_backward(
    gU: Tensor | None,
    gS: Tensor | None,
    gVh: Tensor | None,
    A: Tensor,
    U: Tensor | None,
    S: Tensor,
    Vh: Tensor,
    degenerate: str = "mask",
    values: Tensor | None = None,
    small: Tensor | None = None,
) -> Tensor:
    """gA (..., m, n) from the k largest triples alone: U (..., m, k), S (..., k), Vh (..., k, n).

    Exact: the n - k directions that were never computed enter through A itself. For n <= m (else
    the roles of U and V are swapped) v_i is an eigenvector of G = A^T A with value s_i^2 and
    u_i = A v_i / s_i. Pairs within the k triples are treated as in svd_backward, which is right at
    repeated values too. Outside, with P = I - V V^T,

        W  = (I - U U^T) gU diag(1/s)         from dU = dA V / s + A dV / s
        gv = P (gV + A^T W)                   what arrives at V in all
        x_i = (s_i^2 I - G)^+ gv_i            from P dv_i = (s_i^2 I - G)^+ dG v_i with
                                              dG = dA^T A + A^T dA

        gA = U core Vh + (A x) V^T + (A V) x^T + W V^T

    A is read, and gA written, once. U is None if it was not asked for (then gU is None too).
    values (..., r) and small (..., r, r), all singular values and the vectors of the smaller side
    as rows, spare the decomposition of A that the solve is made of.
    """
    if U is None:
        U = left_vectors(A, S, Vh)
    if A.shape[-1] > A.shape[-2]:
        swapped = (_transpose(gVh), gS, _transpose(gU), A.mT, Vh.mT, S, U.mT)
        return svd_topk_backward(*swapped, degenerate, values, small).mT
    r = A.shape[-1]
    X = U.mT @ gU if gU is not None else None
    Y = Vh @ gVh.mT if gVh is not None else None
    inside = U @ _core(X, gS, Y, S, r, degenerate)
    if X is None and Y is None:
        return inside @ Vh
    # Everything below divides by squares: work on c A and c s, whose gradient is c times smaller.
    counts = S[..., :1, None] >= least_unit(S.dtype)
    scale = torch.where(counts, scale_of(A), 0)
    A, S, V = A * scale, S * scale[..., 0], Vh.mT
    gv = torch.zeros_like(V)
    if gVh is not None and Y is not None:
        gv = gVh.mT - V @ Y
    if gU is not None and X is not None:
        inverse = _inverse(S, S[..., :1], _threshold(S, r), degenerate)
        W = (gU - U @ X) * inverse.unsqueeze(-2)
        gv = gv + A.mT @ W
        inside = inside + scale * W
    gv = gv - V @ (Vh @ gv)
    values = values * scale[..., 0] if values is not None else None
    x: Tensor = _complement_solve(A, S, gv, degenerate, values, small)
    x = x - V @ (Vh @ x)
    return (inside + scale * (A @ x)) @ Vh + scale * ((A @ V) @ x.mT)


@in_full_precision
def _solve(
    A: Tensor, S: Tensor, b: Tensor, degenerate: str, values: Tensor | None, rows: Tensor | None
) -> Tensor:
    """x_i = sum over j > k of v_j <v_j, b_i> / (s_i^2 - s_j^2): the resolvent off the top k.

    A (..., m, n) with n <= m, S (..., k) its largest values, b (..., n, k). The divisor is
    (s_i - s_j)(s_i + s_j), each factor under the degenerate policy. Differentiating
    (s_i^2 I - G) x_i = b_i, with z_i the same solve of the cotangent:

        gb_i = z_i,   gS_i = -2 s_i <z_i, x_i>,   gA = sum_i (A x_i) z_i^T + (A z_i) x_i^T

    The backward calls the op again, so any order of derivative is right. (The parts of x and b
    along the top k are the caller's: it projects with the differentiable V.) values and rows are
    S and Vh of A where somebody has them, or None.
    """
    k, n = S.shape[-1], A.shape[-1]
    if values is None or rows is None:
        _, values, rows = safe_svd(A)
    rest = rows[..., k:, :]
    si, sj, unit = S.unsqueeze(-2), values[..., k:, None], values[..., :1, None]
    tau = _threshold(S, n)
    difference = _inverse(si - sj, unit, tau, degenerate)
    total = _inverse(si + sj, unit, tau, degenerate)
    return rest.mT @ (difference * total * (rest @ b))


def _solve_setup(ctx: Any, inputs: Any, output: Any) -> None:
    A, S, _, ctx.degenerate, values, rows = inputs
    ctx.save_for_backward(A, S, output, values, rows)


def _solve_backward(ctx: Any, gx: Tensor) -> tuple[Any, ...]:
    A, S, x, values, rows = ctx.saved_tensors
    z = _complement_solve(A, S, gx, ctx.degenerate, values, rows)
    gA = (A @ x) @ z.mT + (A @ z) @ x.mT
    return gA, -2 * S * (z * x).sum(-2), z, None, None, None


_complement_solve: Callable[..., Any] = python_op(
    "complement_solve(Tensor A, Tensor S, Tensor b, str degenerate, Tensor? values, Tensor? rows)"
    " -> Tensor",
    _solve,
    fake=lambda A, S, b, *others: b.new_empty(b.shape),
    setup=_solve_setup,
    backward=_solve_backward,
)


@in_full_precision
def eigh_backward(
    gvalues: Tensor | None,
    gvectors: Tensor | None,
    values: Tensor,
    vectors: Tensor,
    degenerate: str = "mask",
) -> Tensor:
    """gA (..., n, n), symmetric, for A = Q diag(w) Q^T: values w (..., n), vectors Q as columns.

    With dQ = Q P, P antisymmetric, and F = Q^T dA Q: F_ij = (w_j - w_i) P_ij + diag(dw), hence

        gA = Q [skew(Q^T gQ)_ij / (w_j - w_i) + diag(gw)] Q^T

    The degenerate policy is relative to the largest |w|.
    """
    core = torch.diag_embed(gvalues if gvalues is not None else torch.zeros_like(values))
    if gvectors is not None:
        tau = _threshold(values, values.shape[-1])
        largest = torch.maximum(values[..., :1].abs(), values[..., -1:].abs()).unsqueeze(-1)
        w, largest, unit = _in_units(values, largest)
        X = vectors.mT @ gvectors
        gap = w.unsqueeze(-2) - w.unsqueeze(-1)
        inverse = _reciprocal(gap, tau * largest, degenerate)
        core = core + (unit / 2) * ((X - X.mT) * inverse)
    return vectors @ core @ vectors.mT


def _transpose(X: Tensor | None) -> Tensor | None:
    return X.mT if X is not None else None
