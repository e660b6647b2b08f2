"""Singular vectors of feature maps, shared by KD-SVD, MHGD and IEP.

A map (B, C, H, W) is read as matrices M (B, L, D), L = H·W positions, D = C channels. Its right
singular vectors V (B, D, k) are directions in channel space, whatever the spatial size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops.distillers._base import Pair, shapes, unit
from kdops.distillers._masks import within
from kdops.ops.align import align_singular_vectors
from kdops.ops.svd import batched_svd


def matrix(f: Tensor) -> Tensor:
    """(B, C, *spatial) -> (B, L, D), a view."""
    return f.flatten(2).transpose(1, 2)


def vector_counts(method: str, level: int, pair: Pair, k: int, candidates: int) -> int:
    """k + candidates, at most what the student's map has; ValueError if k are not to be had."""
    ranks = [min(x.shape[1], x[0, 0].numel() if x.shape[0] else 1) for x in pair]
    if k > min(ranks) and pair[0].shape[0]:
        raise ValueError(
            f"{method}: level {level}: k={k} singular vectors, but maps {shapes(*pair)} have only "
            f"{ranks[0]} and {ranks[1]}; lower k or choose a larger layer"
        )
    return min(k + candidates, max(ranks[0], 1))


def aligned_vectors(
    pair: Pair, k: int, count: int, canonical: bool, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(V_S, V_T), both (B, D, k) scaled by the teacher's normalised singular values.

    The student's count vectors carry the gradient of its decomposition; each teacher vector picks
    the nearest of them, with its sign. The teacher's signs are canonical, or the RBF between two
    levels would depend on the sign that a LAPACK happens to return. mask: which positions count,
    (B, L); the others are zero.
    """
    s, t = pair
    with torch.no_grad():
        teacher = batched_svd(matrix(t), k, compute_u=False, canonical=canonical)
    v_t = within(teacher.Vh.transpose(1, 2), mask)
    v_s = batched_svd(matrix(s), count, compute_u=False, canonical=False).Vh.transpose(1, 2)
    v_s = align_singular_vectors(within(v_s, mask), v_t)
    return _scaled(v_s, v_t, teacher.S)


def projected_vectors(
    method: str, level: int, pair: Pair, k: int, canonical: bool
) -> tuple[Tensor, Tensor]:
    """(V_S, V_T) with V_S = l2norm(F_Sᵀ U_T): no decomposition of the student."""
    s, t = pair
    if s.shape[2:] != t.shape[2:]:
        raise ValueError(
            f"{method}: level {level}: projecting the student on the teacher's left vectors needs "
            f"equal positions, got {shapes(s, t)}; choose layers of equal size or pool one"
        )
    with torch.no_grad():
        teacher = batched_svd(matrix(t), k, canonical=canonical)
    assert teacher.U is not None
    v_s = unit(torch.matmul(s.flatten(2), teacher.U), 1)
    return _scaled(v_s, teacher.Vh.transpose(1, 2), teacher.S)


def _scaled(v_s: Tensor, v_t: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    if sigma.shape[1] == 1:  # σ / ‖σ‖ is 1
        return v_s, v_t
    scale = unit(sigma, 1).unsqueeze(1)
    return v_s * scale, v_t * scale
