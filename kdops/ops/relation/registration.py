"""The relation ops: their shapes, gradients and backends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdops._autograd import loss_op, map_op
from kdops._op import Op
from kdops._vmap import loop_vmap
from kdops.ops.relation import gradient, reference
from kdops.ops.relation.limits import TOO_MANY_ROWS_ON_CUDA

_TRITON = "kdops.ops.relation.triton"


def _rkd_limit(device: str, dtype: torch.dtype, n: int, *sizes: int) -> str | None:
    if device == "cuda" and n >= TOO_MANY_ROWS_ON_CUDA:
        return f"the CUDA kernels take fewer than {TOO_MANY_ROWS_ON_CUDA} rows, got {n}"
    return None


def _fake_loss(student: Tensor, teacher: Tensor, want_grad: bool) -> tuple[Tensor, Tensor]:
    return student.new_empty(()), student.new_empty(student.shape if want_grad else 0)


def _fake_pairs(x: Tensor, y: Tensor | None, squared: bool = False) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], (x if y is None else y).shape[1]))


def _fake_pairs_backward(
    grad: Tensor, x: Tensor, y: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0 if y is None else y.shape)


def _loss(
    name: str,
    loss: Callable[..., Tensor],
    gradient_of: Callable[[Tensor, Tensor], Tensor],
    **options: Any,
) -> Op:
    return Op(
        name,
        fake=_fake_loss,
        derivative=partial(loss_op, formula=lambda s, t, want_grad: gradient_of(s, t)),
        reference=loss,
        typical_sizes=(128, 512, 512),
        **options,
    )


_DECLARED = (
    _loss(
        "rkd_distance",
        reference.rkd_distance_loss,
        gradient.rkd_distance_gradient,
        limit=_rkd_limit,
    ),
    _loss("rkd_angle", reference.rkd_angle_loss, gradient.rkd_angle_gradient, limit=_rkd_limit),
    _loss(
        "similarity",
        reference.similarity_loss,
        gradient.similarity_gradient,
        triton="kdops.ops.relation.triton_similarity",
    ),
    Op(
        "pairwise_distance",
        fake=_fake_pairs,
        backward_fake=_fake_pairs_backward,
        derivative=partial(map_op, formula=gradient.pairwise_distance_gradient, saves_outputs=True),
        reference=reference.pairwise_distance,
        triton=_TRITON,
        typical_sizes=(1, 128, 128, 512),
    ),
    Op(
        "pairwise_cosine",
        fake=_fake_pairs,
        backward_fake=_fake_pairs_backward,
        derivative=partial(map_op, formula=gradient.pairwise_cosine_gradient),
        reference=reference.pairwise_cosine,
        triton=_TRITON,
        typical_sizes=(1, 128, 128, 512),
    ),
    Op(
        "pairwise_angle",
        fake=lambda x: x.new_empty((x.shape[0],) * 3),
        backward_fake=lambda grad, x: x.new_empty(x.shape),
        derivative=partial(
            map_op,
            formula=gradient.pairwise_angle_gradient,
            vmap=loop_vmap,
            backward_vmap=loop_vmap,
        ),
        reference=reference.pairwise_angle,
        triton="kdops.ops.relation.triton_angle",
        typical_sizes=(64, 512),
    ),
)
ops = {op.name: op for op in _DECLARED}
