"""The mathematics of the gram room in plain PyTorch. Read this first."""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._maths import at_least_one, largest_entry, power_of_two_scale, safe_norm

PAPER, MSE, COLUMNS = range(3)  # variants of gram_loss, as the op numbers them


def gram(x: Tensor, y: Tensor | None) -> Tensor:
    """X Yᵀ by the positions. x (B, C1, *S), y (B, C2, *S) or None for y = x -> (B, C1, C2)."""
    X = x.flatten(2)
    Y = X if y is None else y.flatten(2)
    return X @ Y.mT / at_least_one(X.shape[2])


def gram_loss(x1: Tensor, x2: Tensor | None, y1: Tensor, y2: Tensor | None, variant: int) -> Tensor:
    """The mean over the batch of f(D), D = gram(x1, x2) - gram(y1, y2).

    x1 (B, C1, *S), x2 (B, C2, *S) of the student, y1, y2 of the teacher with positions *T; x2 and
    y2 None for x1 and y1. f is half the sum of squares (PAPER), the mean of squares (MSE) or the
    sum of the norms of the columns (COLUMNS).
    """
    difference = gram(x1, x2) - gram(y1, y2)
    if variant == COLUMNS:
        total = safe_norm(difference, 1).sum()
    else:
        total = difference.square().sum()
    return total / divisor(difference, variant)


def divisor(difference: Tensor, variant: int) -> int:
    """What the squares or norms of D (B, C1, C2) are divided by."""
    batch, c1, c2 = difference.shape
    if variant == PAPER:
        return at_least_one(2 * batch)
    return at_least_one(batch * c1 * c2 if variant == MSE else batch)


def unit_channels(f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each channel of a map (B, C, *S) as a unit vector u = s x / n of positions (B, C, L).

    Returns u, n and the power of two s, (B, C, 1) both. A channel of zeros stays zero, with zero
    gradient and n = 1; any other has the direction that it has.
    """
    flat = f.flatten(2)
    scale = power_of_two_scale(largest_entry(flat, 2))
    flat = flat * scale
    norm = safe_norm(flat, 2).unsqueeze(2)
    dead = norm == 0
    norm = torch.where(dead, torch.ones_like(norm), norm)
    return torch.where(dead, flat * 0, flat / norm), norm, scale


def normalised_channels(f: Tensor) -> Tensor:
    """The unit vectors of unit_channels alone."""
    return unit_channels(f)[0]


def nst_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean over the batch of ‖XᵀX/C_S - YᵀY/C_T‖², X and Y the normalised channels.

    student (B, C_S, *S), teacher (B, C_T, *S). The Gram loss of the maps read the other way round.
    """
    X, Y = (normalised_channels(f.flatten(2)) for f in (student, teacher))
    return 2 * gram_loss(X.mT, None, Y.mT, None, PAPER)


def _kernel(x: Tensor, y: Tensor, name: str, degree: float, c: float, width: Tensor) -> Tensor:
    """k(x_i, y_j) of NST for unit rows x (B, N, L), y (B, M, L); width is sigma² of "gaussian"."""
    product = x @ y.mT
    if name == "linear":
        return product
    if name == "poly":
        return (product + c) ** degree
    squares = x.square().sum(2).unsqueeze(2) + y.square().sum(2).unsqueeze(1)
    return torch.exp(-(squares - 2 * product).clamp_min(0) / (2 * width))


def maximum_mean_discrepancy(
    s: Tensor, t: Tensor, name: str, degree: float, c: float, bandwidth: float | None
) -> Tensor:
    """mean k(t, t') + mean k(s, s') - 2 mean k(s, t), one value per sample: (B,).

    s (B, C_S, L), t (B, C_T, L). bandwidth is sigma of "gaussian"; None takes the mean squared
    distance between student and teacher channels of the sample, as a constant.
    """
    width = s.new_ones((s.shape[0], 1, 1))
    if name == "gaussian":
        if bandwidth is None:
            with torch.no_grad():
                squares = s.square().sum(2).mean(1) + t.square().sum(2).mean(1)
                mean = squares - 2 * (s.mean(1) * t.mean(1)).sum(1)
                width = torch.where(mean > 0, mean, torch.ones_like(mean))[:, None, None]
        else:
            width = width * bandwidth**2
    options = (name, degree, c, width)
    return (
        _kernel(t, t, *options).mean((1, 2))
        + _kernel(s, s, *options).mean((1, 2))
        - 2 * _kernel(s, t, *options).mean((1, 2))
    )
