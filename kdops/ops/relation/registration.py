"""Tells torch and the backend table what they must know of the relation ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from kdops import _backends
from kdops.ops.relation import reference

references: dict[str, Callable[..., Tensor]] = {
    "rkd_distance": reference.rkd_distance_loss,
    "rkd_angle": reference.rkd_angle_loss,
    "similarity": reference.similarity_loss,
    "pairwise_distance": reference.pairwise_distance,
    "pairwise_cosine": reference.pairwise_cosine,
}
ops: dict[str, Callable[..., Any]] = {}

for _name in ("rkd_distance", "rkd_angle", "similarity"):
    _backends.register(_name, typical_sizes=(128, 512, 512))
for _name in ("pairwise_distance", "pairwise_cosine"):
    _backends.register(_name, typical_sizes=(1, 128, 128, 512))
_backends.register("pairwise_angle", typical_sizes=(64, 512))


def choose(op: str, x: Tensor, *sizes: int) -> str:
    """The backend for rows x."""
    return _backends.choose(op, x.device.type, x.dtype, *sizes)
