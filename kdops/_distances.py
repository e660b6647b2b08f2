"""Squared distances between rows in plain PyTorch, exact in value and gradient.

Both come from differences of rows, as torch.cdist and its backward take them, one number at a time,
so equal rows give exactly zero and near rows beside a far one keep their digits. That backward has
no derivative; further ones are those of the Gram expansion of centred rows, which needs no
N x M x D tensor but cancels for rows much closer to each other than to the centre. Callers compute
float32 in float64 (_precision.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def centre(*parts: Tensor) -> tuple[Tensor, ...]:
    """Subtract from every part (..., N_p, D) the common mean of all rows, as a constant.

    Any centre is right; the mean is accurate. Entries that are NaN or Inf do not count, so that
    they spoil their own row alone.
    """
    rows = sum(part.shape[-2] for part in parts)
    total = sum(part.detach().nan_to_num(0.0, 0.0, 0.0).sum(-2, keepdim=True) for part in parts)
    return tuple(part - total / max(rows, 1) for part in parts)


def in_forward_mode() -> bool:
    return forward_ad._current_level >= 0


def is_traced() -> bool:
    """Whether a transform or compiler looks on, which wants plain tensor functions."""
    return torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling()


def constant(x: Tensor) -> Tensor:
    """x without a derivative. The vmap of batched gradients (is_grads_batched) knows no detach."""
    if in_forward_mode() or is_traced():
        return x.detach()
    with torch.no_grad():
        return x.clone()


def differentiated() -> bool:
    """Whether what is computed may be asked for a derivative."""
    return torch.is_grad_enabled() or in_forward_mode()


def to_rows(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """2 Σ_j W_ij (x_i - y_j), what the squared distances' cotangents W (..., N, M) give to x.

    The value is what torch.cdist's backward, which has no derivative, sums up from differences for
    distances of a half; the derivative is that of a product.
    """
    values, half = (weights, x, y), torch.full_like(weights, 0.5)
    if in_forward_mode() or is_traced():  # which look into no_grad as well
        values = (weights.detach(), x.detach(), y.detach())
    with torch.no_grad():
        exact: Tensor = torch.ops.aten._cdist_backward(*values, 2.0, half)
    if not differentiated():
        return exact
    x, y = centre(x, y)
    product = 2 * (weights.sum(-1, keepdim=True) * x - weights @ y)
    return exact + (product - constant(product))  # zero, with a derivative


def exact_squares(x: Tensor, y: Tensor) -> Tensor:
    """(..., N, M) of |x_i - y_j|², without a derivative."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(x.detach(), y.detach(), compute_mode=mode).square()


class SquaredDistances(torch.autograd.Function):
    """exact_squares with to_rows as its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return exact_squares(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        return to_rows(grad, x, y), to_rows(grad.mT, y, x)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(..., N, M) of |x_i - y_j|²: value and gradient by differences of rows.

    In forward mode, under torch.func and while a graph is traced the derivative is that of the Gram
    expansion.
    """
    if not differentiated():
        return exact_squares(x, y)
    if not (in_forward_mode() or is_traced()):
        batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        both = x.expand(*batch, -1, -1), y.expand(*batch, -1, -1)
        squares: Tensor = SquaredDistances.apply(*both)  # type: ignore[no-untyped-call]
        return squares
    exact = exact_squares(x, y)
    x, y = centre(x, y)
    gram = x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * (x @ y.mT)
    return exact + (gram - gram.detach())
