"""Unit rows and what their gradient needs, safe at zero and at every scale.

Rows are scaled by a power of two first (a constant, so the result and its derivatives are
unchanged), hence neither 1e+20 nor 1e-20 hurts; a zero row stays zero and passes no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops import _maths
from kdops._precision import in_double


def power_of_two_scale(x: Tensor) -> Tensor:
    """A constant 2^-e that brings max|x| of each matrix (..., N, D) to [1/2, 1); 1 where max|x|
    is 0. NaN and Inf entries do not count. Shape (..., 1, 1)."""
    if x.numel() == 0:
        return x.new_ones((*x.shape[:-2], 1, 1))
    sizes = x.detach().abs().nan_to_num(0.0, 0.0)
    return _maths.power_of_two_scale(sizes.amax(dim=(-2, -1), keepdim=True))


def safe_root(squared: Tensor) -> tuple[Tensor, Tensor]:
    """d = sqrt(d²) and 1/d, both zero with zero gradient at d² = 0. NaN stays NaN."""
    zero = squared <= 0
    root = torch.where(zero, 1.0, squared).sqrt()
    return torch.where(zero, 0.0, root), torch.where(zero, 0.0, 1.0 / root)


def unit_and_inverse(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (..., D) over its norm, and 1 / norm (..., 1): a zero row stays zero, its inverse is 0."""
    scale = power_of_two_scale(x[..., None, :])[..., 0]
    rows = x * scale
    inverse = safe_root(rows.square().sum(-1, keepdim=True))[1]
    return rows * inverse, inverse * scale


@in_double
def unit_rows(x: Tensor) -> Tensor:
    """Rows divided by their norm; a zero row stays zero and has zero gradient."""
    return unit_and_inverse(x)[0]


@in_double
def to_unit_rows(grad: Tensor, x: Tensor) -> Tensor:
    """dL/dx from the cotangent of x/|x|: (grad - (grad · x̂) x̂) / |x|, zero for a zero row."""
    unit, inverse = unit_and_inverse(x)
    return (grad - (grad * unit).sum(-1, keepdim=True) * unit) * inverse
