"""The RBF operators in plain differentiable PyTorch: read this first.

Three rules of the mathematics (they are what the kernels are tested against):
* squared distances and their gradients come from differences of rows (_distances.py);
* a difference of two Gaussians is written with expm1, so that it keeps its digits when the two
  exponents are close: exp(-p) - exp(-q) = exp(-min(p, q)) * sign(q - p) * (1 - exp(-|q - p|));
* large intermediates are made one chunk at a time, and made again in the backward pass rather than
  kept for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._distances import squared_distances
from kdops._precision import in_double
from kdops._recompute import row_blocks, rows_per_chunk, without_storing


def exponents(x: Tensor, z: Tensor, itself: Tensor | None, gamma: float | Tensor) -> Tensor:
    """gamma |x_i - z_j|^2 of rows (..., N, D), (..., M, D); exactly 0 where `itself`.

    Rows of 1e20 are brought into range first, so that an overflow gives Inf (K = 0), never NaN.
    """
    size = torch.zeros((), dtype=x.dtype, device=x.device)
    for rows in (x.detach(), z.detach()):
        if rows.numel():
            size = torch.maximum(size, torch.where(rows.isfinite(), rows, 0.0).abs().amax())
    unit = (size * 1e-12).clamp(min=1)
    x, z = x / unit, z / unit
    squared = squared_distances(x, z)
    if itself is not None:
        squared = torch.where(itself & squared.isfinite(), 0.0, squared)
    return gamma * squared * unit * unit


def gaussian_difference(p: Tensor, q: Tensor) -> Tensor:
    """exp(-p) - exp(-q) without cancellation, for p, q >= 0; Inf stands for a Gaussian of 0.

    Its derivatives are those of the plain difference, which need no such care; only the value is
    replaced by the expm1 form.
    """
    plain = torch.exp(-p) - torch.exp(-q)
    p, q = p.detach().clamp(max=1e30), q.detach().clamp(max=1e30)
    gap = q - p
    value = -torch.exp(-torch.minimum(p, q)) * torch.expm1(-gap.abs()) * gap.sign()
    return value + (plain - plain.detach())


@in_double
def rbf_affinity(x: Tensor, y: Tensor | None, gamma: float | Tensor) -> Tensor:
    """K[..., i, j] = exp(-gamma |x_i - y_j|^2); y = None means x, with an exactly unit diagonal."""
    n = x.shape[-2]
    if y is None:
        itself = torch.eye(n, dtype=torch.bool, device=x.device)
        return torch.exp(-exponents(x, x, itself, gamma))
    return torch.exp(-exponents(x, y, None, gamma))


@in_double
def rbf_affinity_loss(student: Tensor, teacher: Tensor, gamma: float | Tensor) -> Tensor:
    """mean_ij (K_S - K_T)^2 of student (N, D_S) and teacher (N, D_T), a block of rows at a time."""
    n = student.shape[0]
    total = student.sum() * 0  # keeps NaN, dtype and the graph for N = 0 and 1

    def part(student: Tensor, teacher: Tensor, block: slice, itself: Tensor) -> Tensor:
        p = exponents(student[block], student, itself, gamma)
        q = exponents(teacher[block], teacher, itself, gamma)
        return gaussian_difference(p, q).square().sum()

    blocks = blocks_of_pairs(n, student.device)
    for block, itself in blocks:
        total = total + without_storing(len(blocks), part, student, teacher, block, itself)
    return total / max(n * n, 1)


def blocks_of_pairs(n: int, device: torch.device) -> list[tuple[slice, Tensor]]:
    """Blocks of the rows of n x n pairs, and where i == j in them."""
    everyone = torch.arange(n, device=device)
    return [(block, everyone[block, None] == everyone) for block in row_blocks(n, n)]


def svd_rbf_loss(
    student_front: Tensor,
    student_back: Tensor,
    teacher_front: Tensor,
    teacher_back: Tensor,
    beta: float,
    variant: int,
) -> Tensor:
    """sum_bc sum_mn (K_S - K_T)^2, scaled, K[m, n] = exp(-(back[m] - front[n])^2 / beta).

    Fronts (B, D_front, k), backs (B, D_back, k); the sum runs over all samples b and components c.
    """
    items = [t.mT.flatten(0, 1) for t in (student_front, student_back, teacher_front, teacher_back)]
    total = student_front.sum() * 0 + student_back.sum() * 0

    def part(front_s: Tensor, back_s: Tensor, front_t: Tensor, back_t: Tensor) -> Tensor:
        p, q = outer_exponents(front_s, back_s, front_t, back_t, beta)
        return gaussian_difference(p, q).square().sum()

    groups = chunks(*items)
    for group in groups:
        total = total + without_storing(len(groups), part, *group)
    return scaled(total, student_front, variant)


MEAN, SUM, PAPER = range(3)  # variants of svd_rbf_loss, as the op numbers them


def scaled(total: Tensor, student_front: Tensor, variant: int) -> Tensor:
    """A sum over items of (B, D, k) by B (MEAN), as it is (SUM) or times sqrt(k) / 2 (PAPER)."""
    batch, _, k = student_front.shape
    if variant == MEAN:
        count: int = torch.sym_max(batch, 1)
        return total / count
    if variant == SUM:
        return total
    half_root: float = 0.5 * torch.sym_sqrt(k)
    return total * half_root


def outer_exponents(
    front_s: Tensor, back_s: Tensor, front_t: Tensor, back_t: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """The exponents p of K_S and q of K_T, (items, D_back, D_front) each."""
    p = (back_s.unsqueeze(2) - front_s.unsqueeze(1)).square() / beta
    q = (back_t.unsqueeze(2) - front_t.unsqueeze(1)).square() / beta
    return p, q


def chunks(
    front_s: Tensor, back_s: Tensor, front_t: Tensor, back_t: Tensor
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The items (sample, component) in groups whose D_back x D_front temporaries fit in a chunk."""
    group = rows_per_chunk(front_s.shape[1] * back_s.shape[1])
    parts = (t.split(group) for t in (front_s, back_s, front_t, back_t))
    return list(zip(*parts, strict=True))
