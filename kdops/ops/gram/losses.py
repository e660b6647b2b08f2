"""Losses between Gram matrices: FSP and NST."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from kdops import _check, _inputs
from kdops._maths import of_one_size
from kdops._precision import full_precision
from kdops._recompute import without_storing
from kdops.ops.gram import reference, registration

VARIANTS = ("paper", "mse", "columns")  # in the order of reference.PAPER, MSE, COLUMNS
KERNELS = ("poly", "linear", "gaussian")
_MOST_KERNEL_ENTRIES = 1 << 23  # of one C x C kernel stack held at once: 32 MiB in float32

Pair = tuple[Tensor, Tensor]
_NAMES = ("student[0]", "student[1]", "teacher[0]", "teacher[1]")


def fsp_loss(student: Pair, teacher: Pair, *, pool: str = "max", variant: str = "paper") -> Tensor:
    """FSP loss: the difference between the FSP matrices of student and teacher.

    G = F1ᵀ F2 / (h w) per sample between two layers, see fsp_matrix; D = G_S - G_T.

    Args:
        student: (f1, f2), maps (B, C1, *S1) and (B, C2, *S2).
        teacher: (f1, f2) with the same channels; its spatial sizes may differ. A constant.
        pool: "max" | "avg": how the larger map of a pair is brought to the smaller.
        variant: "paper": mean_b ½ Σ D²; "mse": mean of D² over batch and entries (with pool="avg"
            the most used zoo); "columns": Σ of the norms of D's columns / B.

    Returns:
        A 0-d tensor; float32 for half inputs. An empty batch gives 0.

    Cost: with L positions, by channels 8 B C1 C2 L FLOP forward and backward together; where L is
    small against the channels everything goes through L x L products instead. On the CPU the
    matrices are never stored for the whole batch, and each map is read once; a GPU stores D once
    where a gradient is wanted. Differentiable to any order.

    >>> pair = torch.randn(8, 16, 32, 32, requires_grad=True), torch.randn(8, 32, 16, 16)
    >>> fsp_loss(pair, (torch.randn(8, 16, 32, 32), torch.randn(8, 32, 16, 16))).shape
    torch.Size([])
    """
    op = "fsp_loss"
    _check.option(op, "pool", pool, ("max", "avg"))
    _check.option(op, "variant", variant, VARIANTS)
    maps = _check_pairs(op, student, teacher)
    s1, s2, t1, t2 = map(_inputs.widened, maps)
    s1, s2 = of_one_size(s1, s2, pool)
    t1, t2 = of_one_size(_inputs.constant(t1), _inputs.constant(t2), pool)
    return registration.gram_loss(s1, s2, t1, t2, VARIANTS.index(variant))


def nst_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    kernel: str = "poly",
    degree: int = 2,
    c: float = 0.0,
    bandwidth: float | None = None,
) -> Tensor:
    """Neuron selectivity transfer: the maximum mean discrepancy between channel activations.

    With x^i the L2-normalised map of channel i (a vector over positions), per sample
    MMD² = mean k(t, t') + mean k(s, s') - 2 mean k(s, t), averaged over the batch.

    Args:
        student: (B, C_S, *S), one to three spatial dimensions.
        teacher: (B, C_T, *S); channels may differ, the larger map is pooled (averages) to the
            smaller. A constant.
        kernel: "poly": (xᵀy + c)^degree; "linear": xᵀy; "gaussian": exp(-|x - y|²/(2 σ²)).
        bandwidth: σ of "gaussian"; None takes σ² = the mean squared distance between student and
            teacher channels of the sample, as a constant.

    Returns:
        A 0-d tensor; float32 for half inputs. A channel that is zero everywhere counts as a zero
        vector and has a zero gradient. An empty batch gives 0.

    Cost: for degree 2 with c = 0 in closed form, ‖G_S/C_S - G_T/C_T‖² with G = Σ x^i x^iᵀ, through
    the smaller of positions and channels; on the CPU its matrices are never stored for the whole
    batch. The other kernels hold C x C matrices for a few samples at a time and recompute them
    backward.

    Differs from: codes that average the squared difference over the positions too.

    >>> nst_loss(torch.randn(8, 16, 8, 8), torch.randn(8, 32, 8, 8)).shape
    torch.Size([])
    """
    op = "nst_loss"
    _check.option(op, "kernel", kernel, KERNELS)
    if bandwidth is not None:
        _check.positive(op, "bandwidth", bandwidth)
    if kernel == "poly" and not (isinstance(degree, int) and degree >= 1):
        raise ValueError(f"{op}: expected degree to be an integer >= 1, got {degree!r}")
    _check_map(op, "student", student)
    _check_map(op, "teacher", teacher)
    _check.same_kind(op, student=student, teacher=teacher)
    _check.same_size(op, "batch size", student=student.shape[0], teacher=teacher.shape[0])
    _check.rank(op, "teacher", teacher, "[B, C_T, *S] like student", student.dim())
    s, t = _inputs.widened(student), _inputs.constant(_inputs.widened(teacher))
    s, t = of_one_size(s, t, "avg")
    if 0 in (*s.shape, *t.shape):
        return s.sum() * 0
    batch, positions, channels = s.shape[0], prod(s.shape[2:]), (s.shape[1], t.shape[1])
    # with unequal channels the closed form has L x L matrices: only where those are the smaller
    closed = channels[0] == channels[1] or positions <= 2 * max(channels)
    if kernel == "poly" and degree == 2 and c == 0 and closed:
        return registration.nst_loss(s, t)
    with full_precision(s):
        s, t = (reference.normalised_channels(f) for f in (s, t))
        return _streamed(s, t, kernel, float(degree), c, bandwidth) / batch


def _streamed(
    s: Tensor, t: Tensor, kernel: str, degree: float, c: float, bandwidth: float | None
) -> Tensor:
    """Sum over the batch of the discrepancy, a few samples at a time, recomputed backward."""
    batch, entries = s.shape[0], max(s.shape[1], t.shape[1]) ** 2
    chunk = max(1, _MOST_KERNEL_ENTRIES // entries)

    def part(a: Tensor, b: Tensor) -> Tensor:
        return reference.maximum_mean_discrepancy(a, b, kernel, degree, c, bandwidth).sum()

    if chunk >= batch:
        return part(s, t)
    pairs = list(zip(s.split(chunk), t.split(chunk), strict=True))
    return torch.stack([without_storing(len(pairs), part, a, b) for a, b in pairs]).sum()


def _check_map(op: str, name: str, value: object) -> Tensor:
    f = _check.tensor(op, name, value)
    _check.rank(op, name, f, "[B, C, *S] with 1 to 3 spatial dimensions", 3, 5)
    return f


def _check_pairs(op: str, student: object, teacher: object) -> list[Tensor]:
    """(f1, f2) of student and teacher, all checks done."""
    maps: list[Tensor] = []
    for name, pair in (("student", student), ("teacher", teacher)):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                f"{op}: expected {name} to be a pair (f1, f2) of maps, got {_check.describe(pair)}"
            )
        maps += pair
    shapes = [_check_map(op, name, f).shape for name, f in zip(_NAMES, maps, strict=True)]
    dim, holds = len(shapes[0]), 0 not in shapes[0]
    for name, f, shape in zip(_NAMES, maps, shapes, strict=True):
        _check.rank(op, name, f, "[B, C, *S] like student[0]", dim)
        if holds and 0 in shape[2:]:
            raise ValueError(f"{op}: expected {name} with positions, got {_check.describe(f)}")
    _check.same_kind(op, **dict(zip(_NAMES, maps, strict=True)))
    _check.same_size(op, "batch size", **{n: s[0] for n, s in zip(_NAMES, shapes, strict=True)})
    for level in (0, 1):
        s, t = shapes[level], shapes[2 + level]
        if s[1] != t[1]:
            raise ValueError(
                f"{op}: level {level}: expected student and teacher with equal channels, got "
                f"{list(s)} and {list(t)}; map one to the other with a 1x1 convolution"
            )
    return maps
