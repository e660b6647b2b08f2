"""Which dimension of a feature holds the channels: the one place that decides it.

A feature is an embedding (B, D), a map (B, C, *S) or tokens (B, N, D). Three dimensions may be a
map (B, C, L) or tokens, which no shape can tell, so it is said: at the tap, or at the method.
Tokens are read as the map (B, D, N), a transposed view. That view carries a mark: it needs no
layout any more, and a method knows that its positions are no row of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, prod

import torch
from torch import Tensor

LAYOUTS = ("tokens", "channels")
Grid = Sequence[int] | str | None  # (h, w), "square" or none


def check_layout(owner: str, layout: str | None) -> str | None:
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"{owner}: layout is 'tokens', 'channels' or None, got {layout!r}")
    return layout


def is_tokens(x: Tensor) -> bool:
    """Whether x is a map (B, D, N) of tokens that lie in no grid."""
    return getattr(x, "_kdops_layout", None) == "tokens"


def marked(x: Tensor, layout: str | None) -> Tensor:
    """x, known to be a map (B, C, L) of that layout. For tensors that nobody else holds."""
    if layout is not None:
        x._kdops_layout = layout  # type: ignore[attr-defined]
    return x


def carried(new: Tensor, old: Tensor) -> Tensor:
    """new, which is what an operation made of the map old, with its mark."""
    return marked(new, getattr(old, "_kdops_layout", None))


def zeroed(x: Tensor, mask: Tensor | None) -> Tensor:
    """x (B, C, *S) with zeros where the boolean mask (B, N) says padding: it selects and does not
    multiply, so padding may hold anything."""
    if mask is None:
        return x
    keep = mask.reshape(mask.shape[0], 1, *x.shape[2:])
    return carried(torch.where(keep, x, x.new_zeros(())), x)


def layout_of(where: str, x: Tensor, layout: str | None) -> str | None:
    """What a tensor of three dimensions is: its mark, else what was said; None for the others."""
    if x.ndim != 3:
        return None
    found: str | None = getattr(x, "_kdops_layout", layout)
    if found is None:
        _, b, c = x.shape
        raise ValueError(
            f"{where} is {list(x.shape)}, which is either {b} tokens of {c} channels (B, N, D) or "
            f"a map of {b} channels at {c} positions (B, C, L); say layout='tokens' or "
            "layout='channels', at the method or at the FeatureTap (a tensor made of the tokens "
            "of a tap is a map, 'channels')"
        )
    return found


def as_map(x: Tensor, layout: str | None) -> Tensor:
    """x (B, N, D) of layout "tokens" as the map (B, D, N), a view; all else as it is."""
    if layout != "tokens" or is_tokens(x):
        return x
    return marked(x.transpose(1, 2), "tokens")


def tokens_to_maps(tokens: Tensor, *, prefix: int = 0, grid: Grid = None) -> Tensor:
    """Tokens (B, N, D) as a map, without a copy: (B, D, N), or with a grid (B, D, h, w).

    prefix: how many leading tokens to leave out (CLS, registers). grid: the rows and columns (h, w)
    in which the other tokens lie, row by row, or "square"; without it they are a sequence, which
    methods that pool or convolve refuse. The result needs no layout at a method.

    >>> tokens_to_maps(torch.randn(8, 197, 384), prefix=1, grid="square").shape
    torch.Size([8, 384, 14, 14])
    """
    return map_of("tokens_to_maps", tokens, prefix, grid)


def laid_out(where: str, x: Tensor, layout: str | None, prefix: int, grid: Grid) -> Tensor:
    """A layer's tensor as a map where it has three dimensions and a layout, else as it is."""
    if x.ndim != 3 or layout is None:
        return x
    return map_of(where, x, prefix, grid) if layout == "tokens" else marked(x, layout)


def check_cut(owner: str, layout: str | None, prefix: int, grid: Grid) -> None:
    """prefix and grid are of tokens."""
    check_layout(owner, layout)
    if layout != "tokens" and (prefix or grid is not None):
        raise ValueError(f"{owner}: prefix and grid are of tokens: say layout='tokens'")


def map_of(where: str, tokens: Tensor, prefix: int, grid: Grid) -> Tensor:
    """tokens_to_maps, for messages that begin with where."""
    if tokens.ndim != 3:
        raise ValueError(f"{where}: expected tokens (B, N, D), got {list(tokens.shape)}")
    count = tokens.shape[1] - prefix
    if prefix < 0 or count < 1:
        raise ValueError(
            f"{where}: expected a prefix from 0 to {tokens.shape[1] - 1} for tokens (B, N, D) of "
            f"shape {list(tokens.shape)}, got {prefix}"
        )
    maps = tokens[:, prefix:].transpose(1, 2)
    if grid is None:
        return marked(maps, "tokens")
    if grid == "square":
        grid = (isqrt(count), isqrt(count))
    if not isinstance(grid, (tuple, list)) or len(grid) != 2 or prod(grid) != count:
        raise ValueError(
            f"{where}: {count} tokens after a prefix of {prefix} do not fill the grid "
            f"{grid!r}, which is (h, w) or 'square'; CLS and register tokens are the prefix"
        )
    return maps.view(*maps.shape[:2], *grid)
