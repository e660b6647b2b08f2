"""The mathematics of the gram room in plain PyTorch. Read this first."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def gram(x: Tensor, y: Tensor | None, scale: float) -> Tensor:
    """scale * X Yᵀ. x (B, C1, L), y (B, C2, L) or None for y = x -> (B, C1, C2)."""
    return (x @ (x if y is None else y).mT) * scale


def pool_to(x: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
    """Adaptive pooling of a map (B, C, *S) to spatial shape `size`, for 1 to 3 dimensions."""
    pools: dict[str, tuple[Callable[..., Tensor], ...]] = {
        "max": (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
        "avg": (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    }
    return pools[mode][len(size) - 1](x, size)


def pool_pair(f1: Tensor, f2: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """Brings both maps to the smaller of the two sizes in every spatial dimension."""
    size = tuple(min(a, b) for a, b in zip(f1.shape[2:], f2.shape[2:], strict=True))
    f1 = f1 if f1.shape[2:] == size else pool_to(f1, size, mode)
    f2 = f2 if f2.shape[2:] == size else pool_to(f2, size, mode)
    return f1, f2
