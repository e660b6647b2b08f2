"""Masks of padding (B, N): what a method sees of tokens of which some do not count.

True or 1 marks a token, False or 0 padding, as in attention_mask of Hugging Face. A method either
reads padded tokens as zeros, where they add nothing to its sums, or sees the valid tokens alone.
Both select and do not multiply: padding may hold anything, also NaN, and receives zero gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdops._layout import marked

Mask = Any  # a tensor for all levels, or a sequence with one, or None, per level
Masks = list[Tensor | None]


def level_masks(method: str, mask: Mask, maps: Sequence[Tensor]) -> Masks:
    """A boolean mask (B, N) for every level of maps (B, C, *S), or None where all count.

    A mask for all levels leaves embeddings (B, D) alone, which have no positions.
    """
    masks = [mask] * len(maps) if mask is None or isinstance(mask, Tensor) else list(mask)
    if len(masks) != len(maps):
        raise ValueError(f"{method}: {len(masks)} masks for {len(maps)} levels")
    if isinstance(mask, Tensor):
        masks = [m if x.ndim > 2 else None for m, x in zip(masks, maps, strict=True)]
    return [_checked(method, i, m, x) for i, (m, x) in enumerate(zip(masks, maps, strict=True))]


def _checked(method: str, level: int, mask: Any, x: Tensor) -> Tensor | None:
    if mask is None:
        return None
    batch, _, *positions = x.shape
    expected = [batch, x[0, 0].numel() if batch else torch.Size(positions).numel()]
    if not isinstance(mask, Tensor) or list(mask.shape) != expected or x.ndim < 3:
        found = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"{method}: level {level}: expected a mask {expected}, (B, N) for {expected[1]} "
            f"positions, got {found}; cut it as the tokens were cut (mask[:, prefix:])"
        )
    if mask.device != x.device:
        raise ValueError(
            f"{method}: level {level}: the mask is on {mask.device}, the features on {x.device}"
        )
    return mask if mask.dtype == torch.bool else mask != 0


def gathered(x: Tensor, mask: Tensor | None) -> Tensor:
    """The valid positions of x (B, C, *S), n in all, as a batch of maps of one position (n, C, 1):
    a batch of padding alone is an empty one."""
    if mask is None:
        return x
    return marked(x.flatten(2).transpose(1, 2)[mask].unsqueeze(2), "tokens")


def hidden(x: Tensor, mask: Tensor | None) -> Tensor:
    """x (B, C, N) with the lowest number in the place of padding: softmax gives it nothing."""
    if mask is None:
        return x
    return torch.where(mask.unsqueeze(1), x, x.new_full((), torch.finfo(x.dtype).min))


def centroids(x: Tensor, mask: Tensor | None) -> Tensor:
    """Every sample as one vector (B, C), the mean over its positions, padding being zero."""
    return x if x.ndim == 2 else per_length(x, mask).flatten(2).mean(2)


def over_valid(mean: Tensor, mask: Tensor | None) -> Tensor:
    """A mean over (B, N) whose padding added nothing, as the mean over the valid positions."""
    if mask is None:
        return mean
    return mean * mask.numel() / mask.sum().clamp_min(1).to(mean.dtype)


def per_length(x: Tensor, mask: Tensor | None) -> Tensor:
    """x (B, C, *S) times N over the tokens of the sample: sums over x / N become means."""
    if mask is None:
        return x
    share = mask.shape[1] / mask.sum(1).clamp_min(1).to(x.dtype)
    return x * share.view(-1, *[1] * (x.ndim - 1))


def within(vectors: Tensor, mask: Tensor | None) -> Tensor:
    """Singular vectors (B, D, K), zero where a sample has fewer tokens than that: they belong to
    no token, and would not be there without the padding."""
    if mask is None:
        return vectors
    known = torch.arange(vectors.shape[2], device=mask.device) < mask.sum(1, keepdim=True)
    return torch.where(known.unsqueeze(1), vectors, vectors.new_zeros(()))
