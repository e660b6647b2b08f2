"""Distances and angles of a batch, as RKD compares them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops.ops.relation import (
    pairwise_angle,
    pairwise_distance,
    rkd_angle_loss,
    rkd_distance_loss,
)
from kdops.pictures._figure import Networks, figure, networks, rows_of


def rkd_histograms(
    features: Networks, *, level: int = -1, bins: int = 40, samples: int = 128
) -> Any:
    """Histograms of RKD's distances ψ_ij = ‖x_i - x_j‖ / μ and of its angles' cosines <e_ij, e_ik>.

    A line per network over all pairs i < j, and all triples of different samples (the first
    samples of the batch: there are N³). The legends have the losses to the first network.

    >>> x = torch.rand(12, 8)
    >>> figure = rkd_histograms({"teacher": x, "student": x + 0.1 * torch.rand(12, 8)})
    >>> [ax.get_xlabel() for ax in figure.axes]
    ['distance / mean distance', 'cosine of the angle at a sample']
    """
    named = networks("rkd_histograms", features)
    rows = {name: rows_of(levels[level])[:samples] for name, levels in named.items()}
    distances = {name: relative_distances(x) for name, x in rows.items()}
    far = max(float(d.max()) for d in distances.values())
    made, axes = figure(1, 2, 4.4, 3.1, "RKD: the geometry of a batch")
    teacher = next(iter(rows.values()))
    for name, x in rows.items():
        first = x is teacher
        text = "" if first else f": loss {rkd_distance_loss(x, teacher):.4f}"
        _line(axes[0, 0], distances[name], bins, (0.0, far), name + text, first)
        text = "" if first else f": loss {rkd_angle_loss(x, teacher):.4f}"
        _line(axes[0, 1], cosines(x), bins, (-1.0, 1.0), name + text, first)
    axes[0, 0].set(xlabel="distance / mean distance", ylabel="density of pairs")
    axes[0, 1].set(xlabel="cosine of the angle at a sample", ylabel="density of triples")
    axes[0, 1].set_xticks([-1, -0.5, 0, 0.5, 1])
    for ax in axes[0]:
        ax.set_ylim(0, 1.25 * ax.get_ylim()[1])  # room for the legend
        ax.legend(fontsize=8, loc="upper left")
    return made


def relative_distances(x: Tensor) -> Tensor:
    """ψ of all pairs i < j, μ the mean of the distances that are not zero."""
    d = pairwise_distance(x)
    d = d[torch.triu(torch.ones_like(d), 1) > 0]
    positive = d[d > 0]
    return d / positive.mean() if len(positive) else d


def cosines(x: Tensor) -> Tensor:
    """Of all angles at i between different j < k."""
    n = len(x)
    i, j, k = torch.meshgrid(*[torch.arange(n)] * 3, indexing="ij")
    return pairwise_angle(x)[(i != j) & (i != k) & (j < k)]


def _line(
    ax: Any, x: Tensor, bins: int, span: tuple[float, float], label: str, teacher: bool
) -> None:
    density, edges = torch.histogram(x, bins, range=span, density=True)
    style = {"fill": True, "alpha": 0.3} if teacher else {"linewidth": 1.6}
    ax.stairs(density.numpy(), edges.numpy(), label=label, **style)
