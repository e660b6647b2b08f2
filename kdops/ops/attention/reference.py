"""The mathematics of the attention room in plain PyTorch. Read this first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdops._autograd import python_op
from kdops._maths import at_least_one, largest_entry, power_of_two_scale, safe_norm


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


def map_unit(x: Tensor) -> Tensor:
    """The power of two (B, 1, 1) that brings maps x (B, C, L) to where |x|^p stays in range."""
    return power_of_two_scale(largest_entry(x, (1, 2)))


def _keep_unit(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def clipped(grad: Tensor) -> Tensor:
    """A gradient beyond the range is the largest number there, as the kernels leave it."""
    most = torch.finfo(grad.dtype).max
    return grad.clamp(-most, most)


def _times_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return clipped(grad * ctx.saved_tensors[0]), None


# x * unit for a constant unit. Maps of denormal numbers have a gradient that no number holds.
times = python_op(
    "attention_times(Tensor x, Tensor unit) -> Tensor",
    torch.mul,
    fake=torch.mul,
    setup=_keep_unit,
    backward=_times_backward,
)


def attention_loss(
    student: Tensor, teacher: Tensor, p: float, largest: bool, paper: bool
) -> Tensor:
    """Mean over batch and positions of (Q̂_S - Q̂_T)², or (paper) ½ mean_b ‖Q̂_S - Q̂_T‖.

    student (B, C_S, L), teacher (B, C_T, L). Q̂ does not change with the scale of a map.
    """
    Q_s, Q_t = (attention_map(times(x, map_unit(x)), p, largest) for x in (student, teacher))
    return loss_of_maps(Q_s, Q_t, paper)


def loss_of_maps(Q_s: Tensor, Q_t: Tensor, paper: bool) -> Tensor:
    """attention_loss from the attention maps (B, L) of student and teacher."""
    difference = unit_maps(Q_s) - unit_maps(Q_t)
    total = safe_norm(difference, 1).sum() if paper else difference.square().sum()
    return total / divisor(Q_s, paper)


def divisor(Q: Tensor, paper: bool) -> int:
    """What the sum over the batch is divided by; Q (B, L)."""
    batch, positions = Q.shape
    return at_least_one(2 * batch if paper else batch * positions)
