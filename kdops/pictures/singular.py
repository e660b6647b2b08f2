"""Singular vectors of feature maps where they act, and singular values: what KD-SVD compresses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops.distillers._spectral import matrix
from kdops.ops.svd import batched_svd, batched_svdvals
from kdops.pictures._figure import (
    DIVERGING,
    Networks,
    bare,
    captions,
    figure,
    maps,
    networks,
    shown,
    wrapped,
)


def singular_vector_maps(
    images: Tensor, features: Networks, *, level: int = -1, k: int = 3, count: int = 6
) -> Any:
    """Left singular vectors u_1 ... u_k of one level, as pictures of the size of its maps.

    A map is the matrix M = Σ_c σ_c u_c v_cᵀ, positions by channels. The right vectors v_c are what
    KDSVD, MHGD and IEP compare; u_c = M v_c / σ_c says where in the image v_c acts. v_c has its
    canonical sign, so red and blue mean the same in every network. A column's title has the mean
    share σ_c² / Σ σ² of the map's energy.

    >>> maps = torch.rand(4, 8, 6, 6)
    >>> figure = singular_vector_maps(images, {"teacher": maps, "student": maps}, k=2)
    >>> len(figure.axes)  # four rows of an image and 2 x 2 vectors, and a scale
    21
    """
    where = "singular_vector_maps"
    named = networks(where, features)
    count = min(count, len(images))
    columns: list[tuple[str, Tensor]] = []
    for name, levels in named.items():
        maps(f"{where}: {name}", levels)
        chosen = levels[level]
        found = batched_svd(matrix(chosen), k)
        share = (found.S.square() / chosen.square().sum((1, 2, 3)).clamp_min(1e-30)[:, None]).mean(
            0
        )
        assert found.U is not None
        for c in range(k):
            caption = f"{wrapped(name)}\nvector {c + 1} ({100 * share[c]:.0f} %)"
            columns.append((caption, found.U[:count, :, c].unflatten(1, chosen.shape[2:])))
    title = "Left singular vectors: where the channel directions act (share of energy)"
    made, axes = figure(count, 1 + len(columns), 1.15, 1.15, title)
    captions(axes, ["image", *(caption for caption, _ in columns)])
    drawn = None
    for row in range(count):
        shown(axes[row, 0], images[row])
        for ax, (_, vectors) in zip(axes[row, 1:], columns, strict=True):
            one = vectors[row] / vectors[row].abs().amax().clamp_min(1e-30)
            drawn = ax.imshow(one.numpy(), cmap=DIVERGING, vmin=-1, vmax=1)
            bare(ax)
    made.colorbar(drawn, ax=axes, shrink=0.6, label="entry of u / its largest size")
    return made


def spectra(features: Networks, *, energy: float = 0.9) -> Any:
    """Singular values σ_i / σ_1 of every level: how few vectors hold a feature map.

    A panel per level, a line per network: the mean over the samples, and a band from the 10th to
    the 90th percentile. The legend says how many vectors hold the share energy of Σ σ² on average.

    >>> maps = [torch.rand(4, 8, 6, 6), torch.rand(4, 16, 3, 3)]
    >>> figure = spectra({"teacher": maps, "student": maps})
    >>> [ax.get_xlabel() for ax in figure.axes]
    ['index of the singular value', 'index of the singular value']
    """
    named = networks("spectra", features)
    count = len(next(iter(named.values())))
    made, axes = figure(1, count, 3.4, 2.9, "Singular values of the feature maps")
    for i, ax in enumerate(axes[0]):
        for name, levels in named.items():
            maps(f"spectra: {name}", levels)
            values = batched_svdvals(matrix(levels[i]))
            squares = values.square().cumsum(1)
            needed = 1 + (squares < energy * squares[:, -1:]).sum(1).float().mean()
            ratio = values / values[:, :1].clamp_min(1e-30)
            index = range(1, ratio.shape[1] + 1)
            low, high = torch.quantile(ratio, torch.tensor([0.1, 0.9]), dim=0)
            label = f"{name}: {100 * energy:.0f} % in {needed:.1f}"
            (line,) = ax.plot(index, ratio.mean(0).numpy(), marker=".", label=label)
            ax.fill_between(index, low.numpy(), high.numpy(), color=line.get_color(), alpha=0.15)
        ax.set(title=f"level {i + 1}", xlabel="index of the singular value")
        if ax.dataLim.y1 > 0:  # all that is drawn may be zero
            ax.set_yscale("log")
        ax.set_ylim(max(ax.get_ylim()[0], 1e-4), 1.3)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(fontsize=7, loc="lower left")
    axes[0, 0].set_ylabel("value / the largest")
    return made
