"""What is counted: a hot call of every op, forward and backward, on few matrices of common sizes.

Not the benchmark cases: under callgrind a call takes fifty times as long, and a kernel that takes
5 % more instructions takes them on 8 matrices as on 128.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import kdops
from kdops.ops.similarity_kl import pkt_loss


@dataclass(frozen=True)
class Case:
    """shapes: of the arguments. `grad` of them, the first, get a gradient."""

    function: Callable[..., Tensor | tuple[Tensor, ...]]
    shapes: tuple[tuple[int, ...], ...]
    grad: int = 1
    dtype: torch.dtype = torch.float32

    def inputs(self, seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(s, generator=generator, dtype=self.dtype) for s in self.shapes]
        return [x.requires_grad_(i < self.grad) for i, x in enumerate(drawn)]

    def run(self, inputs: list[Tensor]) -> None:
        outputs = self.function(*inputs)
        found = (outputs,) if isinstance(outputs, Tensor) else outputs
        if self.grad:
            wanted = [x for x in found if x.requires_grad]
            torch.autograd.grad(wanted, inputs[: self.grad], [torch.ones_like(x) for x in wanted])


def _full(A: Tensor) -> tuple[Tensor, ...]:
    """S and the product: a loss in which vectors have no signs."""
    U, S, Vh = kdops.batched_svd(A)
    return S, U * S.unsqueeze(-2) @ Vh


def _top(A: Tensor) -> tuple[Tensor, ...]:
    result = kdops.batched_svd(A, 4, compute_u=False)
    return result.S, result.Vh


def _symmetric(A: Tensor) -> tuple[Tensor, ...]:
    return tuple(kdops.batched_eigh(A @ A.mT))


def _fsp(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return kdops.fsp_loss((a, b), (c, d))


def _dropped(student: Tensor, teacher: Tensor) -> Tensor:
    return kdops.gram_anchoring_loss(student, teacher, negatives="drop")


_DOUBLE = torch.float64
_MAP, _ROWS, _TOKENS = (8, 32, 14, 14), (96, 64), (2, 196, 64)

CASES = {
    "svd 8x8": Case(_full, ((64, 8, 8),)),
    "svd 32x32": Case(_full, ((8, 32, 32),)),
    "svd 32x32 float64": Case(_full, ((8, 32, 32),), dtype=_DOUBLE),
    "svd 256x32": Case(_full, ((8, 256, 32),)),
    "svd 128x128": Case(_full, ((2, 128, 128),)),
    "svdvals 64x64": Case(kdops.batched_svdvals, ((8, 64, 64),), grad=0),
    "eigh 32x32": Case(_symmetric, ((8, 32, 32),)),
    "top 4 of 49x512": Case(_top, ((8, 49, 512),)),
    "top 4 of 49x512 float64": Case(_top, ((8, 49, 512),), dtype=_DOUBLE),
    "top 4 of 1024x16": Case(_top, ((8, 1024, 16),)),
    "top 4 of 196x384": Case(_top, ((1, 196, 384),)),
    "polar 32x32": Case(kdops.batched_polar, ((8, 32, 32),)),
    "nuclear norm 32x32": Case(kdops.batched_nuclear_norm, ((8, 32, 32),)),
    "align 4 to 1 of 64": Case(kdops.align_singular_vectors, ((8, 64, 4), (8, 64, 1))),
    "attention_map": Case(kdops.attention_map, (_MAP,)),
    "attention_loss": Case(kdops.attention_loss, (_MAP, (8, 48, 14, 14))),
    "gram 32": Case(kdops.gram, (_MAP,)),
    "fsp_loss": Case(_fsp, (_MAP,) * 4, grad=2),
    "nst_loss": Case(kdops.nst_loss, ((8, 32, 7, 7), (8, 48, 7, 7))),
    "rbf_affinity": Case(kdops.rbf_affinity, (_ROWS,)),
    "rbf_affinity_loss": Case(kdops.rbf_affinity_loss, (_ROWS, (96, 48))),
    "svd_rbf_loss": Case(kdops.svd_rbf_loss, ((4, 64, 4), (4, 32, 4)) * 2, grad=2),
    "rkd_distance_loss": Case(kdops.rkd_distance_loss, (_ROWS, (96, 48))),
    "rkd_angle_loss": Case(kdops.rkd_angle_loss, (_ROWS, (96, 48))),
    "similarity_loss": Case(kdops.similarity_loss, (_ROWS, (96, 48))),
    "pairwise_distance": Case(kdops.pairwise_distance, (_ROWS,)),
    "pairwise_cosine": Case(kdops.pairwise_cosine, (_ROWS,)),
    "pairwise_angle": Case(kdops.pairwise_angle, ((32, 64),)),
    "similarity_kl_loss": Case(kdops.similarity_kl_loss, (_ROWS, (96, 48))),
    "pkt_loss": Case(pkt_loss, (_ROWS, (96, 48))),
    "gram_anchoring_loss": Case(kdops.gram_anchoring_loss, (_TOKENS, (2, 196, 96))),
    "gram_anchoring_loss dropped": Case(_dropped, (_TOKENS, (2, 196, 96))),
    "cka_loss": Case(kdops.cka_loss, ((96, 128), (96, 192))),
    "cka_loss by columns": Case(kdops.cka_loss, ((392, 32), (392, 48))),
}
