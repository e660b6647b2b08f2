"""The KL divergence between the similarities of two networks' rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdops import _check, _inputs
from kdops._maths import at_least_one
from kdops.ops.similarity_kl import registration
from kdops.ops.similarity_kl.reference import Options

__all__ = ["pkt_loss", "similarity_kl_loss"]

Keys = Tensor | tuple[Tensor, Tensor]
_OP = "similarity_kl_loss"


def similarity_kl_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    teacher_temperature: float | None = None,
    similarity: str = "cosine",
    scale: float | None = None,
    self_pairs: bool = True,
    mask: Tensor | None = None,
    keys: Keys | None = None,
) -> Tensor:
    """KL divergence between the softmaxed rows of two similarity matrices (MiniLM, CIRKD).

    Loss = mean over rows i of KL(softmax_j(S_T,ij / τ_T) || softmax_j(S_S,ij / τ_S)), S the
    similarities of a network's rows with each other, or with `keys`. The N x N matrices are never
    stored: tiles of them are made, used and forgotten, in the forward and in the backward pass.

    Args:
        student: (..., N, D). Leading dimensions (images, heads) are batches.
        teacher: (..., N, D'), a constant; D' need not be D.
        temperature: τ_S, positive and finite.
        teacher_temperature: τ_T; None means that of the student.
        similarity: "cosine" (a zero row has cosine 0 with all) or "dot", scale <x_i, x_j>.
        scale: of "dot"; None means 1 / sqrt(D) of the student, 1 / sqrt(D') of the teacher.
        self_pairs: False leaves out j = i. Then a row that meets no other adds 0.
        mask: (..., N), true or 1 for rows that count; the others, padding, may hold anything, have
            zero gradient and leave value and gradient as they are without them.
        keys: other rows that every row meets instead, as a queue of former batches: (M, D) for all
            batches, or (..., M, D). One tensor for both networks where D' = D, or a pair (of the
            student, of the teacher). The student's may need a gradient.

    Returns:
        0-d loss; float32 for half inputs. No rows, no keys: 0. A NaN row gives NaN.

    Cost: 5 N² D multiply-adds for loss and gradient together (7 with a gradient of keys), O(N D)
    memory (a small problem, up to N = 512 alone, keeps its products: 3 N² D); on a GPU products are
    made anew for every 128 columns of the gradient. Rows that are nearly equal are centred, which a
    softmax does not see; the loss is a sum of terms that are never negative. Logits beyond 100 are
    computed in float64. Differentiable to any order (a second derivative stores N x N).

    >>> student = torch.randn(8, 12, 197, 64, requires_grad=True)  # images, heads, tokens
    >>> loss = similarity_kl_loss(student, torch.randn(8, 12, 197, 32), similarity="dot")
    """
    _check.option(_OP, "similarity", similarity, ("cosine", "dot"))
    if scale is not None and similarity != "dot":
        raise ValueError(f"{_OP}: scale belongs to similarity='dot', got {scale} with 'cosine'")
    if keys is not None and not self_pairs:
        raise ValueError(f"{_OP}: self_pairs=False leaves out j = i; a row is none of its keys")
    _check.same_rows(_OP, student, teacher, "rows")
    s, t = _inputs.widened(student), _constant(teacher, student)
    own, theirs = _keys(keys, student, teacher)
    mask = _mask(mask, student)
    if teacher_temperature is None:
        teacher_temperature = temperature
    options = Options(
        _logit_scale("temperature", temperature, scale, similarity, student),
        _logit_scale("teacher_temperature", teacher_temperature, scale, similarity, teacher),
        similarity == "cosine",
        self_pairs,
    )
    shared = own is not None and own.dim() == 2
    lead = 1 if shared or student.dim() == 2 else math.prod(student.shape[:-2])
    s, t = _batched(s, lead), _batched(t, lead)
    if own is not None and theirs is not None:
        own, theirs = _batched(own, lead), _batched(theirs, lead)
    if mask is not None:
        mask = mask.reshape(s.shape[:2])
    return registration.similarity_kl_loss(s, own, t, theirs, mask, options)


def pkt_loss(student: Tensor, teacher: Tensor, *, epsilon: float = 1e-7) -> Tensor:
    """Probabilistic knowledge transfer (PKT): mean over all pairs of p_T log((p_T + ε)/(p_S + ε)).

    x̂ = x / (|x| + 1e-7), c_ij = (<x̂_i, x̂_j> + 1) / 2, p_ij = c_ij / sum_k c_ik. The row sums are
    known from the mean row, so that one pass over tiles of pairs gives loss and gradient.

    Args:
        student: (N, D).
        teacher: (N, D'), a constant; D' need not be D.
        epsilon: ε, positive.

    Returns:
        0-d loss; float32 for half inputs. 0 for N = 0; a zero row has zero gradient.

    Cost: N² (2 D + D') multiply-adds, O(N D) memory. Differentiable to any order (a second
    derivative stores N x N).

    >>> loss = pkt_loss(torch.randn(64, 32, requires_grad=True), torch.randn(64, 48))
    """
    op = "pkt_loss"
    _check.positive(op, "epsilon", epsilon)
    for name, value in (("student", student), ("teacher", teacher)):
        _check.tensor(op, name, value)
        _check.rank(op, name, value, "[N, D]", 2)
    _check.same_size(op, "number of rows", student=student.shape[0], teacher=teacher.shape[0])
    _check.same_device(op, student=student, teacher=teacher)
    s = _inputs.widened(student)
    return registration.pkt_loss(s, _constant(teacher, student), epsilon)


# ---- behind the public names ---------------------------------------------------------------------


def _constant(x: Tensor, student: Tensor) -> Tensor:
    """Without history, in the dtype that is computed in; it may have another than the student."""
    return _inputs.of_dtype(_inputs.constant(x), _inputs.widened(student).dtype)


def _keys(
    keys: Keys | None, student: Tensor, teacher: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The student's and the teacher's keys, checked, in the dtype that is computed in."""
    if keys is None:
        return None, None
    pair = (keys, keys) if isinstance(keys, Tensor) else tuple(keys)
    if len(pair) != 2:
        raise ValueError(f"{_OP}: expected keys, or a pair of them, got {len(pair)}")
    for name, rows, value in zip(
        ("student's keys", "teacher's keys"), (student, teacher), pair, strict=True
    ):
        _check.tensor(_OP, name, value)
        _check.same_device(_OP, **{"student": student, name: value})
        lead, width = list(rows.shape[:-2]), rows.shape[-1]
        if value.dim() < 2 or value.shape[-1] != width or value.shape[:-2] not in ((), tuple(lead)):
            raise ValueError(
                f"{_OP}: expected {name} of shape [M, {width}] or {[*lead, 'M', width]}, "
                f"got {_check.describe(value)}"
            )
    own, theirs = pair
    if own.shape[:-1] != theirs.shape[:-1]:
        raise ValueError(
            f"{_OP}: expected as many keys of the student as of the teacher, got "
            f"{list(own.shape)} and {list(theirs.shape)}"
        )
    own = _inputs.of_dtype(own, _inputs.widened(student).dtype)
    return own, _constant(theirs, student)


def _mask(mask: Tensor | None, student: Tensor) -> Tensor | None:
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.shape != student.shape[:-1]:
        raise ValueError(
            f"{_OP}: expected mask of shape {list(student.shape[:-1])}, the rows of student, got "
            f"{_check.describe(mask)}"
        )
    _check.same_device(_OP, student=student, mask=mask)
    return mask if mask.dtype == torch.bool else mask != 0


def _logit_scale(
    name: str, temperature: float, scale: float | None, similarity: str, rows: Tensor
) -> float:
    """What an inner product of rows is multiplied with."""
    _check.positive(_OP, name, temperature)
    if similarity == "cosine":
        return 1.0 / temperature
    width = at_least_one(rows.shape[-1])
    return (1.0 / torch.sym_sqrt(width) if scale is None else scale) / temperature


def _batched(x: Tensor, lead: int) -> Tensor:
    """(lead, rows, D): all rows together where lead is one."""
    dim = x.dim()
    if dim == 2 and lead == 1:
        return x.unsqueeze(0)  # a reshape costs a microsecond more
    if dim == 3 and x.shape[0] == lead:
        return x
    *batch, rows, width = x.shape
    return x.reshape(lead, math.prod(batch) * rows if lead == 1 else rows, width)
