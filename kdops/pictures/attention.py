"""Attention maps over the images they belong to."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdops.ops.attention import attention_map
from kdops.pictures._figure import Networks, captions, figure, maps, networks, shown, wrapped


def attention_maps(
    images: Tensor, features: Networks, *, p: float = 2, reduce: str = "sum", count: int = 6
) -> Any:
    """Where networks look: Q = Σ_c |A_c|^p (or max_c), over each image, 1 at its largest value.

    images: (B, C, H, W). features: name -> maps (B, C_l, H_l, W_l) of as many levels each, such as
    FeatureTap gives. A row per image (the first count of them), a column per network and level.
    p, reduce: as of kdops.attention_map, which AttentionTransfer matches.

    >>> maps = [torch.rand(4, 8, 8, 8), torch.rand(4, 16, 4, 4)]
    >>> figure = attention_maps(images, {"teacher": maps, "student": maps})
    >>> figure.savefig("attention.png")
    """
    where = "attention_maps"
    named = networks(where, features)
    columns = [(name, i) for name, levels in named.items() for i in range(len(levels))]
    count = min(count, len(images))
    power = "" if p == 1 else "²" if p == 2 else f"^{p:g}"
    summed = "the sum over channels" if reduce == "sum" else "the largest channel"
    title = f"Attention maps: {summed} of |feature|{power}"
    made, axes = figure(count, 1 + len(columns), 1.15, 1.15, title)
    captions(axes, ["image", *(f"{wrapped(name)}\nlevel {i + 1}" for name, i in columns)])
    height, width = images.shape[2:]
    drawn = None
    for column, (name, i) in enumerate(columns, 1):
        maps(f"{where}: {name}", named[name])
        level = attention_map(named[name][i][:count], p=p, reduce=reduce)
        level = level / level.amax((1, 2), keepdim=True).clamp_min(1e-30)
        for row, one in enumerate(level):
            shown(axes[row, column], images[row])
            edges = (-0.5, width - 0.5, height - 0.5, -0.5)
            drawn = axes[row, column].imshow(
                one.numpy(), cmap="inferno", alpha=0.7, extent=edges, vmin=0, vmax=1
            )
    for row in range(count):
        shown(axes[row, 0], images[row])
    scale = made.colorbar(drawn, ax=axes, shrink=0.6, label="attention / its largest value")
    scale.solids.set_alpha(1)
    return made
