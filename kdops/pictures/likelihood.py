"""Where VID's student knows the teacher's features: maps of the log-likelihood."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdops.distillers import VID
from kdops.pictures._figure import (
    SEQUENTIAL,
    Networks,
    bare,
    captions,
    figure,
    networks,
    shown,
    wrapped,
)


def vid_heat_maps(
    method: VID | Mapping[str, VID], images: Tensor, features: Networks, *, count: int = 6
) -> Any:
    """VID's log q(t | s) of the teacher's features at every position, per channel, in nats.

    log q = -½ mean_c [log 2π + log σ_c² + (t_c - μ_c(s))² / σ_c²]: bright where the student's
    features tell the teacher's. features: the teacher's maps first, then those of one student or
    more (before and after); method: the VID of all students, or one by a student's name. A row per
    image, a column per student and level; the columns of a level share a scale, and their titles
    have the mean over the batch.

    >>> t, s = [torch.rand(4, 16, 4, 4)], [torch.rand(4, 8, 4, 4)]
    >>> figure = vid_heat_maps(VID(8, 16), images, {"teacher": t, "student": s})
    """
    found = log_likelihoods(method, features)
    levels = len(next(iter(found.values())))
    columns = [(i, name) for i in range(levels) for name in found]
    count = min(count, len(images))
    title = "VID: log-likelihood of the teacher's features given the student's (nats per channel)"
    made, axes = figure(count, 1 + len(columns), 1.25, 1.25, title)
    means = {(i, name): float(found[name][i].mean()) for i, name in columns}
    texts = [f"{wrapped(name)}\nlevel {i + 1}: {means[i, name]:.2f}" for i, name in columns]
    captions(axes, ["image", *texts])
    for i in range(levels):
        shared = torch.cat([x[i][:count].flatten() for x in found.values()])
        low, high = torch.quantile(shared, torch.tensor([0.02, 1.0])).tolist()
        own = [c for c, (level, _) in enumerate(columns, 1) if level == i]
        for column in own:
            for row in range(count):
                one = found[columns[column - 1][1]][i][row]
                ax = axes[row, column]
                drawn = ax.imshow(one.numpy(), cmap=SEQUENTIAL, vmin=low, vmax=high)
                bare(ax)
        made.colorbar(drawn, ax=axes[:, own], shrink=0.6, location="bottom", label="log q")
    for row in range(count):
        shown(axes[row, 0], images[row])
    return made


@torch.no_grad()
def log_likelihoods(method: VID | Mapping[str, VID], features: Networks) -> dict[str, list[Tensor]]:
    """By student: log q per channel at every position, (B, H, W) per level."""
    networks("vid_heat_maps", features, least=2)
    found = {}
    for name in list(features)[1:]:
        one = method if isinstance(method, VID) else method[name]
        first, *_ = named = networks("vid_heat_maps", features, least=2, beside=one)
        levels, teacher = named[name], named[first]
        terms = one.deviations(one.pairs(levels, teacher))
        found[name] = [(-0.5 * (math.log(2 * math.pi) + x.mean(1))).cpu() for x in terms]
        for i, x in enumerate(found[name]):
            if x.ndim != 3:
                raise ValueError(
                    f"vid_heat_maps: level {i}: expected maps (B, C, H, W), got {name}'s "
                    f"{list(levels[i].shape)} and {first}'s {list(teacher[i].shape)}"
                )
    return found
