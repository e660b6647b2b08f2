"""What networks say last: which classes they take for alike, which columns mean the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops.distillers import RSD, SoftTarget
from kdops.distillers._standard import standardised
from kdops.pictures._figure import DIVERGING, SEQUENTIAL, Networks, by_class, figure, networks


def class_probabilities(features: Networks, labels: Tensor, *, temperature: float = 4.0) -> Any:
    """Dark knowledge: what a network gives to the classes that an image does not belong to.

    features: logits (B, classes); labels: (B,). A row per true class: softmax(z / T) without the
    true class, over what is left, mean over the images, so that rows add up to one. Below a
    student's name: SoftTarget's loss to the first network, T² KL.

    >>> y, z = torch.arange(12) % 3, torch.randn(12, 3)
    >>> figure = class_probabilities({"teacher": z, "student": z}, y)
    >>> figure.axes[1].get_title()
    'student\\nT² KL: 0.00'
    """
    given = networks("class_probabilities", features)
    named = {name: levels[-1] for name, levels in given.items()}
    teacher = next(iter(named.values()))
    for name, z in named.items():
        if z.ndim != 2 or z.shape != teacher.shape:
            raise ValueError(
                f"class_probabilities: {name}: expected logits (B, classes) like those of the "
                f"first network, {list(teacher.shape)}, got {list(z.shape)}"
            )
    labels = labels.cpu()
    classes = by_class(labels)[3]
    found = [_wrong_classes(z, labels, temperature) for z in named.values()]
    top = max(float(p.nan_to_num().max()) for p in found)
    title = f"Which other classes an image could be (softmax at T = {temperature:g})"
    made, axes = figure(1, len(named), 3.0, 2.8, title)
    for ax, name, z, p in zip(axes[0], named, named.values(), found, strict=True):
        drawn = ax.imshow(p.numpy(), cmap=SEQUENTIAL, vmin=0, vmax=top)
        ax.set_yticks(range(len(classes)), classes)
        ax.set_xticks(range(z.shape[1]))
        ax.set_xlabel("class")
        loss = SoftTarget(temperature=temperature)(z, teacher)
        ax.set_title(name if z is teacher else f"{name}\nT² KL: {loss:.2f}", fontsize=9)
    axes[0, 0].set_ylabel("true class")
    made.colorbar(drawn, ax=axes, shrink=0.8, label="share of the other classes")
    return made


def _wrong_classes(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """(classes present, classes): NaN, which is drawn as nothing, at the true one."""
    hidden = (z / temperature).scatter(1, labels[:, None], -torch.inf).softmax(1)
    rows = [hidden[labels == c].mean(0) for c in labels.unique()]
    return torch.stack(rows).scatter(1, labels.unique()[:, None], torch.nan)


def channel_correlations(features: Networks, *, level: int = -1) -> Any:
    """RSD's matrix: how channels of a network go with those of the first, C = XᵀY / rows.

    X, Y: standardised columns of embeddings (B, D) or of maps (B, D, *S), of which every position
    is a row. A student that has the teacher's channels has a bright diagonal, one whose channels
    say different things each is dark beside it. Below a student's name: the mean of its diagonal,
    where there are as many channels, and RSD's loss.

    >>> x = torch.randn(12, 8)
    >>> figure = channel_correlations({"teacher": x, "student": x})
    >>> figure.axes[1].get_title().splitlines()[1].split(",")[0]
    'diagonal 1.00'
    """
    given = networks("channel_correlations", features)
    named = {name: levels[level] for name, levels in given.items()}
    first = next(iter(named.values()))
    columns = _columns(first)
    made, axes = figure(1, len(named), 3.0, 2.8, "Correlation of channels with the first network's")
    for ax, name, x in zip(axes[0], named, named.values(), strict=True):
        if x.shape[2:] != first.shape[2:] or x.ndim < 2:
            raise ValueError(
                f"channel_correlations: {name}: expected positions like those of the first "
                f"network, {list(first.shape)}, got {list(x.shape)}"
            )
        found = torch.matmul(_columns(x).T, columns) / len(columns)
        drawn = ax.imshow(found.numpy(), cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")
        told = name
        if x is not first and found.shape[0] == found.shape[1]:
            loss = RSD(layout="channels")(x, first)
            told = f"{name}\ndiagonal {found.diagonal().mean():.2f}, RSD {loss:.1f}"
        ax.set(xlabel="channel of the first network")
        ax.set_title(told, fontsize=9)
    axes[0, 0].set_ylabel("channel")
    made.colorbar(drawn, ax=axes, shrink=0.8, label="correlation")
    return made


def _columns(x: Tensor) -> Tensor:
    """(rows, D), standardised."""
    return standardised(x.movedim(1, -1).flatten(0, -2), 0, eps=1e-5, correction=0)
