"""The mathematics of the attention room in plain PyTorch. Read this first."""

from __future__ import annotations

import torch
from torch import Tensor

from kdops.ops.gram.reference import safe_norm


def attention_map(x: Tensor, p: float, largest: bool) -> Tensor:
    """Σ_c |x|^p, or the maximum over c. x (B, C, L) -> (B, L)."""
    size = x.abs()
    if largest:
        if x.shape[1] == 0:
            return x.sum(1)
        # one channel is chosen (the first of equals); p > 0 keeps the order
        return _power(size.gather(1, size.argmax(1, keepdim=True)).squeeze(1), p)
    return _power(size, p).sum(1)


def _power(size: Tensor, p: float) -> Tensor:
    """size^p with gradient zero at zero, for every p > 0."""
    if p == 2:
        return size * size
    positive = size > 0
    power = torch.where(positive, size, torch.ones_like(size)) ** p
    return torch.where(positive, power, size * 0)


def map_norms(Q: Tensor) -> tuple[Tensor, Tensor]:
    """(‖Q‖₂ per sample, or 1 where it is negligible; where it is). Q (B, L) -> (B, 1) each.

    A norm so small that its reciprocal would leave the range of the gradient counts as zero.
    """
    norm = safe_norm(Q, 1).unsqueeze(1)
    kind = torch.finfo(Q.dtype)
    negligible = norm < kind.tiny / kind.eps
    return torch.where(negligible, torch.ones_like(norm), norm), negligible


def unit_maps(Q: Tensor) -> Tensor:
    """Q / ‖Q‖₂ per sample; zero stays zero, with zero gradient. Q (B, L)."""
    norm, negligible = map_norms(Q)
    return torch.where(negligible, Q * 0, Q / norm)


def attention_loss(
    student: Tensor, teacher: Tensor, p: float, largest: bool, paper: bool, coefficient: float
) -> Tensor:
    """coefficient * f(Q̂_S - Q̂_T) summed over the batch, f the squared norm or (paper) the norm.

    student (B, C_S, L), teacher (B, C_T, L).
    """
    Q_s, Q_t = (attention_map(x, p, largest) for x in (student, teacher))
    return loss_of_maps(Q_s, Q_t, paper, coefficient)


def loss_of_maps(Q_s: Tensor, Q_t: Tensor, paper: bool, coefficient: float) -> Tensor:
    """attention_loss from the attention maps (B, L) of student and teacher."""
    difference = unit_maps(Q_s) - unit_maps(Q_t)
    if paper:
        return coefficient * safe_norm(difference, 1).sum()
    return coefficient * difference.square().sum()
