"""FitNets: hints for thin deep nets (Romero et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from kdops.distillers._base import Distiller, Levels, Pair, mean, samples, shapes
from kdops.distillers._connectors import apply, apply_pointwise, check_planes
from kdops.distillers._masks import Mask

Shape = Sequence[int]


def regressor(
    student: Shape, teacher: Shape, *, batch_norm: bool, relu: bool, level: int = 0
) -> nn.Sequential:
    """Map a student map (C, H, W) to the teacher's shape.

    1x1 when sizes agree, which may then be of any number of dimensions; 3x3 stride 2 if
    H_S = 2 H_T; transposed 4x4 stride 2 if 2 H_S = H_T; a valid convolution
    of size 1 + H_S - H_T for another larger student.
    """
    (c_s, *size_s), (c_t, *size_t) = student, teacher
    layer: nn.Module
    if size_s == size_t:
        layer = nn.Conv2d(c_s, c_t, 1)
    elif len(size_s) != 2 or len(size_t) != 2:
        raise ValueError(
            f"FitNet: level {level}: no regressor from {list(student)} to {list(teacher)}; sizes "
            "may differ between maps (C, H, W) only"
        )
    elif all(a == 2 * b for a, b in zip(size_s, size_t, strict=True)):
        layer = nn.Conv2d(c_s, c_t, 3, stride=2, padding=1)
    elif all(2 * a == b for a, b in zip(size_s, size_t, strict=True)):
        layer = nn.ConvTranspose2d(c_s, c_t, 4, stride=2, padding=1)
    elif all(a >= b for a, b in zip(size_s, size_t, strict=True)):
        layer = nn.Conv2d(c_s, c_t, (1 + size_s[0] - size_t[0], 1 + size_s[1] - size_t[1]))
    else:
        raise ValueError(
            f"FitNet: level {level}: no regressor from {list(student)} to {list(teacher)} "
            "(C, H, W); the student map must be as large, twice or half as large, or larger: "
            "choose another layer"
        )
    tail: list[nn.Module] = [nn.BatchNorm2d(c_t)] if batch_norm else []
    return nn.Sequential(layer, *tail, *([nn.ReLU()] if relu else []))


class FitNet(Distiller):
    """Hints: L = mean (r(F_S) - F_T)², r a convolutional regressor per level, summed over levels.

    student_shapes, teacher_shapes: (C, H, W) per level, or (C, *S) for equal sizes;
    from_sample reads them off features. batch_norm follows the regressor; relu=True for features
    after the teacher's ReLU. variant: "mean", or "paper": ½ Σ (r(F_S) - F_T)² / B.
    """

    padding = "valid"
    channels_rule = "connector"
    positions_rule = "regressor"
    paper = "Romero et al. 2015"

    def __init__(
        self,
        student_shapes: Shape | Sequence[Shape],
        teacher_shapes: Shape | Sequence[Shape],
        *,
        batch_norm: bool = True,
        relu: bool = False,
        variant: str = "mean",
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        if variant not in ("mean", "paper"):
            raise ValueError(f"FitNet: variant is 'mean' or 'paper', got {variant!r}")
        self.variant = variant
        lists = [_shape_list(student_shapes), _shape_list(teacher_shapes)]
        if len(lists[0]) != len(lists[1]):
            raise ValueError(f"FitNet: {len(lists[0])} student and {len(lists[1])} teacher shapes")
        self.channels = [(a[0], b[0]) for a, b in zip(*lists, strict=True)]
        self.regressors = nn.ModuleList(
            regressor(a, b, batch_norm=batch_norm, relu=relu, level=i)
            for i, (a, b) in enumerate(zip(*lists, strict=True))
        )

    @classmethod
    def _numbers(cls, pairs: Sequence[Pair]) -> dict[str, Any]:
        return {
            "student_shapes": [tuple(s.shape[1:]) for s, _ in pairs],
            "teacher_shapes": [tuple(t.shape[1:]) for _, t in pairs],
        }

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        pairs = self.pairs(student, teacher, mask)
        terms = []
        for i, (net, (s, t)) in enumerate(zip(self.regressors, pairs, strict=True)):
            r = _regress(i, net, s)
            if r.shape != t.shape:
                raise ValueError(
                    f"FitNet: level {i}: the regressor turned {shapes(s)} into {shapes(r)}, the "
                    f"teacher has {shapes(t)}; rebuild it with from_sample for these sizes"
                )
            square = (r - t) ** 2
            half = 0.5 * square.sum() / samples(student)
            terms.append(mean(square) if self.variant == "mean" else half)
        return self.total(terms)


def _regress(level: int, net: nn.Module, s: Tensor) -> Tensor:
    layer: Any = next(net.children())
    if layer.kernel_size == (1, 1):
        return apply_pointwise("FitNet", level, net, s)
    check_planes("FitNet", level, "student", s)
    sizes = zip(s.shape[2:], layer.padding, layer.kernel_size, strict=True)
    if any(n + 2 * p < k for n, p, k in sizes):
        raise ValueError(
            f"FitNet: level {level}: the student map {shapes(s)} is smaller than the regressor's "
            f"kernel {list(layer.kernel_size)}; rebuild it with from_sample for these sizes"
        )
    return apply("FitNet", level, net, s)


def _shape_list(value: Any) -> list[Shape]:
    """One (C, H, W) is a list of one."""
    return [value] if value and isinstance(value[0], int) else list(value)
