"""What the mathematics of several rooms needs, in plain PyTorch: norms and scales that are safe at
zero and at the ends of the exponent range, and two maps brought to one size."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_one(size: int) -> int:
    """A size to divide by; it stays a symbol in a traced graph."""
    count: int = torch.sym_max(size, 1)
    return count


def largest_entry(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """max |x| over `dim`, which is kept; a constant of the gradient. NaN where x has one."""
    sizes = x.detach().abs()
    if x.numel():
        return sizes.amax(dim, keepdim=True)
    return sizes.sum(dim, keepdim=True)


def power_of_two_scale(largest: Tensor) -> Tensor:
    """The power of two that brings `largest` to [1/2, 1), or as near as a normal number can.

    Multiplying by it rounds nothing. 1 for zero, NaN and Inf. A constant of the gradient. The
    kernels' is csrc/common/shared/power_of_two.h.
    """
    least = torch.finfo(largest.dtype).tiny
    size = largest.detach().clamp(min=least)
    scale = (torch.frexp(size).mantissa / size).clamp(min=least)  # a quotient without rounding
    return torch.where((largest > 0) & scale.isfinite(), scale, torch.ones_like(scale))


def least_unit(dtype: torch.dtype) -> float:
    """Below it the largest singular value counts as zero, for the gradient of the vectors: above it
    no reciprocal of values that are told apart overflows. The kernels' is csrc/svd/shared/policy.h.
    """
    finfo = torch.finfo(dtype)
    return finfo.tiny / finfo.eps


def safe_norm(x: Tensor, dim: int) -> Tensor:
    """L2 norm along `dim`, with gradient zero at zero and no overflow of the squares."""
    largest = x.detach().abs().amax(dim, keepdim=True) if x.shape[dim] else x.new_zeros(())
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    squares = (x / largest).square().sum(dim, keepdim=True)
    positive = squares > 0
    root = torch.where(positive, squares, torch.ones_like(squares)).sqrt()
    # not positive means zero, or NaN, which must stay NaN
    return (torch.where(positive, root, squares) * largest).squeeze(dim)


def pool_to(x: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
    """Adaptive pooling of a map (B, C, *S) to spatial shape `size`, for 1 to 3 dimensions."""
    pools: dict[str, tuple[Callable[..., Tensor], ...]] = {
        "max": (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
        "avg": (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    }
    return pools[mode][len(size) - 1](x, size)


def of_one_size(f1: Tensor, f2: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """Brings both maps to the smaller of the two sizes in every spatial dimension."""
    if f1.shape[2:] == f2.shape[2:]:
        return f1, f2
    size = tuple(min(a, b) for a, b in zip(f1.shape[2:], f2.shape[2:], strict=True))
    f1 = f1 if f1.shape[2:] == size else pool_to(f1, size, mode)
    f2 = f2 if f2.shape[2:] == size else pool_to(f2, size, mode)
    return f1, f2
