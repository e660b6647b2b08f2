"""Attention maps of feature maps, and attention transfer."""

from __future__ import annotations

from torch import Tensor

from kdops import _check, _inputs
from kdops._maths import of_one_size
from kdops.ops.attention import registration

__all__ = ["attention_loss", "attention_map"]

REDUCTIONS = ("sum", "max")
VARIANTS = ("code", "paper")


def attention_map(f: Tensor, *, p: float = 2, reduce: str = "sum") -> Tensor:
    """Spatial attention of a feature map: Σ_c |A_c|^p, or max_c |A_c|^p.

    Args:
        f: (B, C, *S), one to three spatial dimensions; channels_last is read where it lies.
        p: exponent > 0; |A| is taken first, so odd and fractional p are right for negative values.
        reduce: "sum" | "max" over the channels.

    Returns:
        (B, *S), not normalised, in the dtype of f (float16 and bfloat16 are summed in float32). The
        gradient at a zero entry is zero; of equal largest channels the first receives it.

    Cost: reads the map once forward, once backward. Differentiable to any order.

    >>> attention_map(torch.randn(128, 64, 32, 32)).shape
    torch.Size([128, 32, 32])
    """
    op = "attention_map"
    _check_arguments(op, p, reduce)
    _check.rank(op, "f", _check.tensor(op, "f", f), "[B, C, *S]", 3, 5)
    work, dtype = _inputs.computed(f)
    out = registration.attention_map(_inputs.flat(work), float(p), reduce == "max")
    out = _inputs.of_dtype(out, dtype)
    return out if f.dim() == 3 else out.reshape(f.shape[0], *f.shape[2:])


def attention_loss(
    student: Tensor, teacher: Tensor, *, p: float = 2, reduce: str = "sum", variant: str = "code"
) -> Tensor:
    """Attention transfer: distance between the normalised attention maps Q̂ = Q / ‖Q‖₂ per sample.

    Args:
        student: (B, C_S, *S).
        teacher: (B, C_T, *S); channels may differ, the larger map is pooled (averages) to the
            smaller. A constant.
        p, reduce: see attention_map.
        variant: "code" (the published numbers): mean over batch and positions of (Q̂_S - Q̂_T)²;
            "paper": ½ mean_b ‖Q̂_S - Q̂_T‖₂. Multiply by β (1000 for "code").

    Returns:
        A 0-d tensor; float32 for half inputs. A map that is zero everywhere has Q̂ = 0 and a zero
        gradient. Any other counts, also where |A|^p itself would leave the range of its dtype: it
        is multiplied by a power of two first, which rounds nothing. An empty batch gives 0.

    Cost: reads both maps once forward, the student's once backward; keeps one attention map.
    Differentiable to any order.

    Differs from: two popular codes forget |A| for odd p.

    >>> attention_loss(torch.randn(8, 16, 8, 8), torch.randn(8, 64, 8, 8)).shape
    torch.Size([])
    """
    op = "attention_loss"
    _check_arguments(op, p, reduce)
    _check.option(op, "variant", variant, VARIANTS)
    for name, f in (("student", student), ("teacher", teacher)):
        _check.rank(op, name, _check.tensor(op, name, f), "[B, C, *S]", 3, 5)
    _check.same_kind(op, student=student, teacher=teacher)
    _check.rank(op, "teacher", teacher, "[B, C_T, *S] like student", student.dim())
    _check.same_size(op, "batch size", student=student.shape[0], teacher=teacher.shape[0])
    s, t = _inputs.widened(student), _inputs.constant(_inputs.widened(teacher))
    s, t = map(_inputs.flat, of_one_size(s, t, "avg"))
    return registration.attention_loss(s, t, float(p), reduce == "max", variant == "paper")


def _check_arguments(op: str, p: float, reduce: str) -> None:
    _check.option(op, "reduce", reduce, REDUCTIONS)
    if isinstance(p, bool) or not isinstance(p, (int, float)):
        raise TypeError(f"{op}: expected p to be a number, got {type(p).__name__}")
    _check.positive(op, "p", p)
