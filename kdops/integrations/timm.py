"""Taps on the networks of timm by the levels that they name themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from kdops.features import FeatureTap


def tap(model: nn.Module, levels: Sequence[int] | None = None, **options: Any) -> FeatureTap:
    """A FeatureTap at the levels in a timm network's feature_info: the stages of a convolutional
    network, the blocks of a transformer.

    >>> model = timm.create_model("vit_small_patch16_224")
    >>> with tap(model, [3, -1]) as features:  # blocks.3 and blocks.11 as maps (B, 384, 14, 14)
    ...     model(images)

    levels: numbers of those levels, None for all. options are those of FeatureTap. A transformer's
    tokens are given without CLS and registers and in the grid of its patches; grid=None leaves them
    a sequence (B, D, N). Networks with maps (B, H, W, C), such as Swin, are a ValueError.
    """
    name = type(model).__name__
    info: Any = getattr(model, "feature_info", None)
    if not info:
        raise ValueError(f"tap: {name} has no feature_info; name its layers for a FeatureTap")
    known = [entry["module"] for entry in (info if isinstance(info, list) else info.get_dicts())]
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        raise ValueError(
            f"tap: {name} gives maps (B, H, W, C) at {', '.join(known)}, and a distiller reads the "
            "second dimension as channels; permute what a FeatureTap gives by (0, 3, 1, 2)"
        )
    chosen = range(len(known)) if levels is None else levels
    if wrong := [i for i in chosen if not -len(known) <= i < len(known)]:
        raise ValueError(f"tap: {name} has the levels 0 to {len(known) - 1} ({known}), got {wrong}")
    return FeatureTap(model, [known[i] for i in chosen], **{**_layout(model), **options})


def _layout(model: nn.Module) -> dict[str, Any]:
    """How the tokens of a transformer lie; nothing for the maps of a convolutional network."""
    prefix: int | None = getattr(model, "num_prefix_tokens", None)
    patches: Any = getattr(model, "patch_embed", None)
    if prefix is None or not hasattr(patches, "grid_size"):
        return {}
    return {"layout": "tokens", "prefix": prefix, "grid": tuple(patches.grid_size)}
