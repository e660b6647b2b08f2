"""What all pictures share: figures without pyplot, networks by name, images to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Levels = Tensor | Sequence[Tensor]
Networks = Mapping[str, Levels]
DIVERGING, SEQUENTIAL, CLASSES = "RdBu_r", "viridis", "tab10"


def figure(rows: int, columns: int, width: float, height: float, title: str) -> tuple[Any, Any]:
    """A Figure and its axes (rows, columns), each of so many inches, under a title of two lines."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError(
            "kdops.pictures draws with matplotlib: pip install matplotlib, or 'kdops[pictures]'"
        ) from error
    size = (max(width * columns + 0.9, 4.0), height * rows + 0.9)  # a scale beside, titles above
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    made = Figure(figsize=size, layout=layout, dpi=100)
    made.suptitle(title, fontsize=10)
    return made, made.subplots(rows, columns, squeeze=False)


def networks(
    where: str, features: Networks, least: int = 1, beside: nn.Module | None = None
) -> dict[str, list[Tensor]]:
    """name -> levels, detached, in fp32 on the CPU, or where a module lies that reads them; all
    networks have as many levels and samples."""
    device = next((p.device for p in beside.parameters()), None) if beside else None
    if not isinstance(features, Mapping) or len(features) < least:
        raise ValueError(
            f"{where}: expected features as a mapping from the names of {least} or more networks "
            f"to their levels, the teacher's first, got {_found(features)}"
        )
    found = {}
    for name, levels in features.items():
        each = [levels] if isinstance(levels, Tensor) else list(levels)
        found[name] = [x.detach().float().to(device or "cpu") for x in each]
    sizes = {(len(levels), *(x.shape[0] for x in levels)) for levels in found.values()}
    if len(sizes) > 1 or (0,) in sizes:
        shapes = {name: [list(x.shape) for x in levels] for name, levels in found.items()}
        raise ValueError(f"{where}: expected networks of as many levels and samples, got {shapes}")
    return found


def _found(features: object) -> str:
    return str(list(features)) if isinstance(features, Mapping) else type(features).__name__


def maps(where: str, levels: Sequence[Tensor]) -> None:
    """Levels are maps (B, C, H, W), the ones that can be looked at."""
    for i, x in enumerate(levels):
        if x.ndim != 4:
            raise ValueError(
                f"{where}: level {i}: expected maps (B, C, H, W), got {list(x.shape)}; tokens "
                "become maps by FeatureTap(layout='tokens', prefix=..., grid=...)"
            )


def rows_of(x: Tensor) -> Tensor:
    """Every sample as one vector, (B, D)."""
    return x.flatten(1)


def shown(ax: Any, image: Tensor) -> None:
    """An image (C, H, W) of any range, from its smallest value to its largest."""
    low, high = image.min(), image.max()
    image = ((image.detach().float().cpu() - low) / (high - low).clamp_min(1e-12)).cpu()
    if image.shape[0] == 3:
        ax.imshow(image.permute(1, 2, 0).numpy())
    else:
        ax.imshow(image.mean(0).numpy(), cmap="gray")
    bare(ax)


def bare(ax: Any) -> None:
    ax.set_xticks([])
    ax.set_yticks([])


def captions(axes: Any, texts: Sequence[str], size: float = 8) -> None:
    """Titles of the columns."""
    for ax, text in zip(axes[0], texts, strict=True):
        ax.set_title(text, fontsize=size)


def wrapped(name: str) -> str:
    """The name of a network above a narrow column."""
    return fill(name, 13)


def plane(x: Tensor) -> Tensor:
    """The first two principal components of rows (B, D), (B, 2)."""
    from kdops.ops.svd import batched_svd

    centred = rows_of(x) - rows_of(x).mean(0)
    k = min(2, *centred.shape)
    axes = batched_svd(centred[None], k, compute_u=False).Vh[0]
    return F.pad(torch.matmul(centred, axes.T), (0, 2 - k))


def by_class(labels: Tensor) -> tuple[Tensor, list[float], list[int], list[str]]:
    """The order that sorts samples by class, borders of the blocks, their middles and names."""
    order = torch.argsort(labels, stable=True)
    names, counts = torch.unique(labels[order], return_counts=True)
    ends = counts.cumsum(0)
    middles = (ends - counts.div(2, rounding_mode="floor") - 1).tolist()
    return order, (ends[:-1] - 0.5).tolist(), middles, [str(int(n)) for n in names]
