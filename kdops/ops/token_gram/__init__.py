"""Gram matrices of tokens and of the rows of a batch, compared: Gram anchoring, CKA."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from kdops import _check, _inputs
from kdops.ops.token_gram import registration

__all__ = ["cka_loss", "gram_anchoring_loss"]

NEGATIVES = ("keep", "drop", "drop_teacher")  # in the order of reference.KEEP, DROP, DROP_TEACHER


def gram_anchoring_loss(
    student: Tensor, teacher: Tensor, *, negatives: str = "keep", mask: Tensor | None = None
) -> Tensor:
    """Gram anchoring: mean (G_S - G_T)², G = X Xᵀ of the L2-normalised tokens of an image.

    Args:
        student: (..., N, D_S) tokens.
        teacher: (..., N, D_T), a constant. D_T need not be D_S.
        negatives: what is done with cosines below zero. "keep": nothing; "drop": those of G_S and
            of G_T count as zero; "drop_teacher": those of G_T count as zero, G_S stays as it is.
        mask: (..., N), True or 1 where a token counts. Padding may hold anything and has no
            gradient. The result is the mean over images of what each gives without its padding,
            0 for an image of padding alone.

    Returns:
        0-d loss; float32 for half inputs. 0 where there are no tokens. A zero token has cosine zero
        with all and zero gradient. NaN in a token gives NaN for the loss and its image's gradient.

    Cost: on the CPU N² (3 D_S + D_T) / 2 multiply-adds an image for loss and gradient together, or,
    where negatives stay and that is less, N (3 D_S² + 4 D_S D_T + D_T²) / 2 (and then the
    former as well for images of which student and teacher agree to a few percent); on a GPU
    N² (D_S + (D_S + D_T) ⌈D_S / 128⌉). Nothing of size N x N is stored. Differentiable to any
    order (a second derivative stores N x N).

    Differs from: published code normalises with an eps, of which a zero token has a gradient 1e12
    times too large. Where it drops the teacher's negatives alone it means to drop the student's
    beside them, too, but asks for those after they have become zero, and so leaves G_S as it is.

    >>> student = torch.randn(2, 196, 384, requires_grad=True)
    >>> gram_anchoring_loss(student, torch.randn(2, 196, 768), negatives="drop").backward()
    """
    op = "gram_anchoring_loss"
    _check.option(op, "negatives", negatives, NEGATIVES)
    _check.same_rows(op, student, teacher, "leading dimensions and number of tokens")
    s, t = _inputs.widened(student), _inputs.constant(teacher)
    t = _inputs.of_dtype(t, s.dtype)
    weights = None
    if mask is not None:
        s, t, weights = _without_padding(op, s, t, mask)
    number = NEGATIVES.index(negatives)
    return registration.gram_anchoring_loss(_as_batch(s), _as_batch(t), weights, number)


def cka_loss(
    student: Tensor, teacher: Tensor, *, centered: bool = True, mask: Tensor | None = None
) -> Tensor:
    """1 - CKA, centred kernel alignment, between the rows of student and teacher.

    CKA = <K_S, K_T> / (|K_S| |K_T|), K = X Xᵀ of the rows minus their mean.

    Args:
        student: (..., N, D_S); the mean over leading dimensions is taken.
        teacher: (..., N, D_T), a constant. D_T need not be D_S.
        centered: False leaves the rows as they are.
        mask: (..., N), True or 1 where a row counts, as for gram_anchoring_loss.

    Returns:
        0-d loss; float32 for half inputs. Rows without variance (all equal, one, none) have CKA 0,
        so the loss is 1 there, with zero gradient. 0 where there are no matrices.

    Cost: one pass gives loss and gradient, by the rows (N x N) or, where D is well below N, by the
    columns (D x D, and on a CPU again in float64 where the loss is below 1/4). Differentiable to
    any order. Digits are lost to no scale and no offset.

    >>> cka_loss(torch.randn(64, 512, requires_grad=True), torch.randn(64, 2048)).shape
    torch.Size([])
    """
    op = "cka_loss"
    _check.same_rows(op, student, teacher, "leading dimensions and number of tokens")
    s, t = _inputs.widened(student), _inputs.constant(teacher)
    t = _inputs.of_dtype(t, s.dtype)
    inside = None
    if mask is not None:
        inside = _counts(op, mask, s).reshape(prod(s.shape[:-2]), s.shape[-2])
    return registration.cka_loss(_as_batch(s), _as_batch(t), inside, centered)


def _as_batch(x: Tensor) -> Tensor:
    """Tokens of any leading dimensions as (B, N, D)."""
    return x if x.dim() == 3 else x.reshape(prod(x.shape[:-2]), *x.shape[-2:])


def _counts(op: str, mask: object, x: Tensor) -> Tensor:
    """The mask, checked, as booleans."""
    if not isinstance(mask, Tensor) or mask.shape != x.shape[:-1]:
        found = _check.describe(mask)
        raise ValueError(f"{op}: expected mask of shape {list(x.shape[:-1])}, got {found}")
    if mask.device != x.device:
        raise ValueError(f"{op}: expected mask on {x.device}, got {mask.device}")
    return mask if mask.dtype == torch.bool else mask != 0


def _without_padding(op: str, s: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens with zeros for padding, which add nothing, and the weight of each image."""
    counts = _counts(op, mask, s)
    present = counts.sum(-1).clamp(min=1).to(s.dtype).flatten()
    weights = 1 / present.square() / max(present.numel(), 1)
    inside = counts.unsqueeze(-1)
    return s.where(inside, s.new_zeros(())), t.where(inside, t.new_zeros(())), weights
