"""RBF (Gaussian) affinities and the losses built on them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdops import _check, _inputs
from kdops.ops.rbf import registration

__all__ = ["rbf_affinity", "rbf_affinity_loss", "svd_rbf_loss"]

_SAFE_BANDWIDTH = torch.finfo(torch.float32).max / 4  # in every dtype that is computed in
VARIANTS = ("mean", "sum", "paper")  # of svd_rbf_loss, in the order of reference.MEAN, SUM, PAPER


def rbf_affinity(x: Tensor, y: Tensor | None = None, *, gamma: float | Tensor = 1.0) -> Tensor:
    """Gaussian affinity of all pairs of rows: K_ij = exp(-gamma |x_i - y_j|²).

    Args:
        x: (..., N, D).
        y: (..., M, D) with the same leading dimensions; None means y = x, where only one half is
            computed and the diagonal is exactly one.
        gamma: bandwidth, positive and finite: a number, or a tensor that may need a gradient, with
            one element or one per batch entry. A tensor on a GPU is not checked, which would wait
            for the device: a negative one gives affinities above one, an infinite one NaN.

    Returns:
        (..., N, M) in the dtype of the inputs; float16 and bfloat16 are computed in float32. Pairs
        and sums that cancel are taken from differences of rows, so that offsets, clusters and far
        rows cost no digits, in the gradient neither. A row with NaN gives NaN in its own
        pairs. N = 0 or M = 0 gives an empty matrix.

    Cost: 2 N M D FLOP forward (half for y = None), twice that backward; stores K and nothing else
    of that size. Differentiable to any order.

    >>> x = torch.randn(512, 128, requires_grad=True)
    >>> rbf_affinity(x, gamma=1 / 128).shape
    torch.Size([512, 512])
    """
    _check_rows("rbf_affinity", x, y)
    tensor, value = _bandwidth("rbf_affinity", gamma, x)
    x, y = _widened(x, y)
    lead, dtype = x.shape[:-2], x.dtype
    x, y = _inputs.widened(x), None if y is None else _inputs.widened(y)
    if tensor is not None:
        tensor = _per_batch(tensor.to(x.dtype), lead)
    x, y = _stacked(x, lead), None if y is None else _stacked(y, lead)
    out = _inputs.of_dtype(registration.rbf_affinity(x, y, tensor, value), dtype)
    if len(lead) == 1:
        return out
    return out.view(*lead, *out.shape[-2:]) if lead else out.squeeze(0)


def rbf_affinity_loss(student: Tensor, teacher: Tensor, *, gamma: float | Tensor = 1.0) -> Tensor:
    """Mean squared difference of two affinity matrices: mean_ij (K_S - K_T)².

    K_ij = exp(-gamma |x_i - x_j|²) of the student's and of the teacher's rows. The N x N matrices
    are never stored: tiles of them are made, used for the loss and the gradient, and forgotten,
    so that memory is O(N D) in the forward and in the backward pass.

    Args:
        student: (N, D_S).
        teacher: (N, D_T), detached; D_T may differ from D_S.
        gamma: bandwidth, positive and finite: a number or a one-element tensor that may need a
            gradient (it moves both matrices). A tensor on a GPU is not checked, see rbf_affinity.

    Returns:
        0-d tensor; float32 for float16 and bfloat16 inputs. The difference is taken with expm1 and
        keeps its digits when student and teacher are close. N = 0 gives 0.

    Cost: N² (2 D_S + D_T) multiply-adds for loss and gradient together. Differentiable to any
    order (a second derivative stores N x N).

    >>> student = torch.randn(64, 32, requires_grad=True)
    >>> rbf_affinity_loss(student, torch.randn(64, 48), gamma=0.02).backward()
    """
    op = "rbf_affinity_loss"
    _check_all(op, "[N, D]", 2, {"student": student, "teacher": teacher})
    _check.same_size(op, "number of rows", student=student.shape[0], teacher=teacher.shape[0])
    tensor, value = _bandwidth(op, gamma, student)
    if tensor is not None and tensor.numel() != 1:
        raise ValueError(f"{op}: expected gamma with one element, got {_check.describe(tensor)}")
    student, teacher = _inputs.widened(student), _inputs.constant(_inputs.widened(teacher))
    if tensor is not None:
        tensor = tensor.to(student.dtype).reshape(())
    return registration.rbf_affinity_loss(student, teacher, tensor, value)


def svd_rbf_loss(
    student_front: Tensor,
    student_back: Tensor,
    teacher_front: Tensor,
    teacher_back: Tensor,
    *,
    beta: float = 8.0,
    variant: str = "mean",
) -> Tensor:
    """RBF relation between the singular vectors of two levels (KD-SVD), student against teacher.

    For sample b and component c, K[m, n] = exp(-(back[b, m, c] - front[b, n, c])² / beta), and the
    loss is the sum over b, c, m, n of (K_S - K_T)², scaled by `variant`. Loss and both student
    gradients are computed in one pass; nothing of size B x D_back x D_front x k is stored.

    Args:
        student_front, teacher_front: (B, D_front, k), any strides; the teacher is detached.
        student_back, teacher_back: (B, D_back, k).
        beta: width of the Gaussian, a positive number.
        variant: "mean" divides by B, "sum" does not, "paper" multiplies the sum by sqrt(k) / 2.

    Returns:
        0-d tensor; float32 for float16 and bfloat16 inputs. The difference is taken in a form that
        keeps its digits when student and teacher are close. An empty batch gives 0.

    Cost: O(B k (D_front + D_back) r²) with r about 6 for singular vectors, 8 on a GPU (a low-rank
    form that is exact to rounding), O(B k D_front D_back) for values of any size. Differentiable
    to any order.

    >>> front = torch.randn(8, 64, 4, requires_grad=True)
    >>> back = torch.randn(8, 128, 4, requires_grad=True)
    >>> svd_rbf_loss(front, back, torch.randn(8, 64, 4), torch.randn(8, 128, 4)).backward()
    """
    op = "svd_rbf_loss"
    _check.option(op, "variant", variant, VARIANTS)
    _check.positive(op, "beta", beta)
    maps = {
        "student_front": student_front,
        "student_back": student_back,
        "teacher_front": teacher_front,
        "teacher_back": teacher_back,
    }
    _check_all(op, "[B, D, k]", 3, maps)
    _check_levels(student_front, student_back, teacher_front, teacher_back)
    sf, sb = _inputs.widened(student_front), _inputs.widened(student_back)
    tf = _inputs.constant(_inputs.widened(teacher_front))
    tb = _inputs.constant(_inputs.widened(teacher_back))
    return registration.svd_rbf_loss(sf, sb, tf, tb, beta, VARIANTS.index(variant))


def _widened(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Under autocast the result is float32, like the computation."""
    if y is None:
        return _inputs.outside_autocast(x)[0], None
    x, y = _inputs.outside_autocast(x, y)
    return x, y


def _stacked(x: Tensor, lead: torch.Size) -> Tensor:
    """(B, rows, D)."""
    if len(lead) == 1:
        return x
    if not lead:
        return x.unsqueeze(0)  # a reshape costs a microsecond more, and so does its gradient
    return x.reshape(math.prod(lead), *x.shape[-2:])


def _check_all(op: str, shape: str, dims: int, tensors: dict[str, Tensor]) -> None:
    for name, value in tensors.items():
        _check.tensor(op, name, value)
        _check.rank(op, name, value, shape, dims)
    _check.same_kind(op, **tensors)


def _check_rows(op: str, x: Tensor, y: Tensor | None) -> None:
    _check.tensor(op, "x", x)
    _check.rank(op, "x", x, "[..., N, D]", 2, -1)
    if y is None:
        return
    _check.tensor(op, "y", y)
    _check.same_kind(op, x=x, y=y)
    if y.dim() != x.dim() or y.shape[:-2] != x.shape[:-2] or y.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"{op}: expected y of shape [..., M, D] with the leading dimensions and D of x, "
            f"{list(x.shape)}, got {_check.describe(y)}"
        )


def _check_levels(sf: Tensor, sb: Tensor, tf: Tensor, tb: Tensor) -> None:
    op = "svd_rbf_loss"
    if sf.shape != tf.shape or sb.shape != tb.shape:
        pair = (sf, tf) if sf.shape != tf.shape else (sb, tb)
        raise ValueError(
            f"{op}: expected student and teacher of the same shape at each level, got "
            f"{list(pair[0].shape)} and {list(pair[1].shape)}"
        )
    (batch, _, k), (back_batch, _, back_k) = sf.shape, sb.shape
    if (batch, k) != (back_batch, back_k):
        _check.same_size(op, "batch size", front=batch, back=back_batch)
        _check.same_size(op, "number of components", front=k, back=back_k)


def _bandwidth(op: str, gamma: float | Tensor, x: Tensor) -> tuple[Tensor | None, float]:
    """gamma as (tensor, unused) or (None, number), checked where that makes no device wait."""
    if not isinstance(gamma, Tensor):
        _check_bandwidth(op, gamma, x.dtype)
        return None, float(gamma)
    _check.tensor(op, "gamma", gamma)
    readable = gamma.device.type == "cpu" and not torch.compiler.is_compiling()
    if readable and not torch._C._are_functorch_transforms_active():
        for value in gamma.detach().aminmax() if gamma.numel() else ():
            _check_bandwidth(op, value.item(), x.dtype)
    return gamma if gamma.device == x.device else gamma.to(x.device), 0.0


def _check_bandwidth(op: str, gamma: float, dtype: torch.dtype) -> None:
    """Positive, and such that the gradient's factor 2 gamma is finite in the computed dtype."""
    _check.positive(op, "gamma", gamma)
    if gamma <= _SAFE_BANDWIDTH:  # at every call, so first
        return
    if gamma > (wide := torch.finfo(torch.promote_types(dtype, torch.float32))).max / 4:
        raise ValueError(f"{op}: expected gamma finite in {wide.dtype}, got {gamma}")


def _per_batch(gamma: Tensor, lead: torch.Size) -> Tensor:
    """One bandwidth per batch entry, (B,), from one element or something that expands to `lead`."""
    if gamma.numel() == 1:
        return gamma.reshape(1).expand(math.prod(lead))
    if gamma.shape != lead:
        raise ValueError(
            f"rbf_affinity: expected gamma with one element or of shape {list(lead)}, "
            f"got {_check.describe(gamma)}"
        )
    return gamma.reshape(-1)
