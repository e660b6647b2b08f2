"""Matrices that methods match: FSP between two levels, similarities of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops.distillers._base import unit
from kdops.ops.gram import fsp_matrix
from kdops.ops.relation import similarity_loss
from kdops.pictures._figure import (
    SEQUENTIAL,
    Networks,
    by_class,
    captions,
    figure,
    maps,
    networks,
    rows_of,
)


def fsp_matrices(features: Networks, *, pool: str = "max") -> Any:
    """FSP matrices G = F1ᵀ F2 / (h w) between consecutive levels, mean over the samples.

    A row per pair of levels, a column per network; one colour scale a row, so that what the FSP
    method moves can be seen. pool: as of kdops.fsp_matrix.

    >>> maps = [torch.rand(4, 8, 6, 6), torch.rand(4, 16, 3, 3)]
    >>> figure = fsp_matrices({"teacher": maps, "student": maps})
    >>> figure.axes[0].get_ylabel()
    'channels of level 1'
    """
    named = networks("fsp_matrices", features)
    for name, levels in named.items():
        maps(f"fsp_matrices: {name}", levels)
        if len(levels) < 2:
            raise ValueError(f"fsp_matrices: {name}: needs at least 2 levels, got {len(levels)}")
    pairs = len(next(iter(named.values()))) - 1
    title = "FSP matrices: products of the channels of two levels, mean over images"
    made, axes = figure(pairs, len(named), 3.0, 2.0, title)
    captions(axes, list(named), 9)
    for i in range(pairs):
        found = [fsp_matrix(x[i], x[i + 1], pool=pool).mean(0) for x in named.values()]
        top = max(float(g.abs().max()) for g in found)
        low = min(0.0, *(float(g.min()) for g in found))
        for ax, g in zip(axes[i], found, strict=True):
            drawn = ax.imshow(g.numpy(), cmap=SEQUENTIAL, vmin=low, vmax=top, aspect="auto")
            ax.set(xlabel=f"channels of level {i + 2}", ylabel=f"channels of level {i + 1}")
        made.colorbar(drawn, ax=list(axes[i]), label="G")
    return made


def similarity_matrices(features: Networks, labels: Tensor, *, level: int = -1) -> Any:
    """SP's figure: Ĝ = Q Qᵀ with rows of length one, Q = flatten(F), samples sorted by class.

    A panel per network with lines between the classes: a network that separates them has bright
    blocks on the diagonal. Below a student's name: SP's loss ‖Ĝ_T - Ĝ_S‖_F² / B² to the first
    network, times 1000. labels: (B,).

    >>> y, embedding = torch.arange(12) % 3, torch.rand(12, 8)
    >>> figure = similarity_matrices({"teacher": embedding, "student": embedding}, y)
    >>> [text.get_text() for text in figure.axes[0].get_xticklabels()]
    ['0', '1', '2']
    """
    named = networks("similarity_matrices", features)
    order, borders, middles, names = by_class(labels.cpu())
    title = "Similarities of the images of a batch, sorted by class"
    made, axes = figure(1, len(named), 3.3, 3.1, title)
    rows = [rows_of(levels[level])[order] for levels in named.values()]
    found = [unit(torch.matmul(q, q.T), 1) for q in rows]
    top = max(float(g.max()) for g in found)
    low = min(0.0, *(float(g.min()) for g in found))
    for ax, name, g, q in zip(axes[0], named, found, rows, strict=True):
        drawn = ax.imshow(g.numpy(), cmap=SEQUENTIAL, vmin=low, vmax=top, interpolation="nearest")
        for border in borders:
            ax.axhline(border, color="white", linewidth=0.5)
            ax.axvline(border, color="white", linewidth=0.5)
        ax.set_xticks(middles, names)
        ax.set_yticks(middles, names)
        loss = 1000 * similarity_loss(q, rows[0])
        told = name if q is rows[0] else f"{name}\n1000 x SP loss: {loss:.3f}"
        ax.set_title(told, fontsize=9)
        ax.set_xlabel("class")
    axes[0, 0].set_ylabel("class")
    made.colorbar(drawn, ax=axes, shrink=0.8, label="similarity, rows of length one")
    return made
