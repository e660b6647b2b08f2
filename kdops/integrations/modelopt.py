"""Criteria for NVIDIA ModelOpt's distillation (modelopt.torch.distill, mode "kd_loss")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from kdops._batches import logits_of
from kdops._layout import Grid, check_cut, laid_out
from kdops._records import first_tensor
from kdops.integrations import missing

try:
    from modelopt.torch.distill.loss_balancers import STUDENT_LOSS_KEY, DistillationLossBalancer
except ImportError as error:
    raise missing("modelopt", "nvidia-modelopt", error) from error

OUTPUT = ("", "")  # ModelOpt's name for the networks themselves


def criterion(
    method: nn.Module, layers: tuple[Sequence[str], Sequence[str]] | None = None, *,
    layout: str | None = None, prefix: int = 0, grid: Grid = None,
) -> dict[tuple[str, str], _Loss]:  # fmt: skip
    """The criterion of a ModelOpt configuration for one method, of one level or of several.

    >>> config = {"teacher_model": teacher, "criterion": criterion(method, (names, names)),
    ...     "loss_balancer": balancer(weight=1.0)}
    >>> model = modelopt.torch.distill.convert(student, [("kd_loss", config)])
    >>> loss = model.compute_kd_loss(student_loss=task)  # after model(images)

    ModelOpt calls a loss per pair of layers. All pairs but the last hand their features over and
    are zero, the last one is the method's loss of all levels; it holds the method, whose parameters
    are then among the model's, in parameters() and in state_dict(). layers = (student's, teacher's)
    names, as many of each, each once; None for a method of logits. Where a WeightedSum has terms of
    logits besides, the networks' outputs are a pair too. layout, prefix and grid are those of a
    FeatureTap. compute_kd_loss(student_loss=task, mask=attention_mask) passes a mask on.
    """
    check_cut("criterion", layout, prefix, grid)
    pairs = _pairs(layers)
    logits = layers is None or _takes_logits(method)
    collector = _Collector(method, len(pairs), logits, prefix)
    names = [*pairs, OUTPUT] if logits else pairs
    cut = (layout, prefix, grid)
    losses: list[_Loss] = [_Level(collector, name, cut) for name in names[:-1]]
    return dict(zip(names, [*losses, _Last(method, collector, names[-1], cut)], strict=True))


def balancer(weight: float = 1.0) -> DistillationLossBalancer:
    """The student's loss + weight · the sum of the others, as kdops.training.fit has it."""
    return _Balancer(weight)


class _Balancer(DistillationLossBalancer):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, loss: dict[str, Tensor]) -> Tensor:
        terms = dict(loss)
        task = terms.pop(STUDENT_LOSS_KEY, None)
        if task is not None and self._student_loss_reduction_fn is not None:
            task = self._student_loss_reduction_fn(task)
        distill = self.weight * sum(terms.values(), next(iter(terms.values())).new_zeros(()))
        return distill if task is None else task + distill


class _Collector:
    """What the pairs of one method hand over in one call of compute_kd_loss."""

    def __init__(self, method: nn.Module, levels: int, logits: bool, prefix: int) -> None:
        self.name, self.levels, self.logits, self.prefix = (
            type(method).__name__, levels, logits, prefix,
        )  # fmt: skip
        self.clear()

    def clear(self) -> None:
        self.features: list[tuple[Tensor, Tensor]] = []
        self.outputs: tuple[Any, Any] = (None, None)

    def sides(self) -> list[tuple[list[Tensor] | None, Any]]:
        """(features, logits) of student and teacher."""
        if len(self.features) != self.levels:
            raise RuntimeError(
                f"{self.name}: {len(self.features)} of {self.levels} levels came in: give ModelOpt "
                "all that criterion() returned, in its order"
            )
        columns: list[Any] = list(zip(*self.features, strict=True)) or [None, None]
        return [
            (None if c is None else list(c), z) for c, z in zip(columns, self.outputs, strict=True)
        ]


class _Level(_Loss):
    """Hands the features of a pair of layers over."""

    def __init__(self, collector: _Collector, pair: tuple[str, str], cut: Any) -> None:
        super().__init__()
        self.collector, self.pair, self.cut = collector, pair, cut

    def take(self, student: Any, teacher: Any) -> None:
        if self.pair == OUTPUT:
            self.collector.outputs = (logits_of(student), logits_of(teacher))
            return
        s, t = (
            laid_out(f"{self.collector.name}: at {name!r}", first_tensor(x), *self.cut)
            for name, x in zip(self.pair, (student, teacher), strict=True)
        )
        self.collector.features.append((s, t))

    def forward(self, student: Any, teacher: Any, **_: Any) -> Tensor:
        self.take(student, teacher)
        return first_tensor(student).new_zeros(())


class _Last(_Level):
    """The method's loss of everything that was handed over."""

    def __init__(
        self, method: nn.Module, collector: _Collector, pair: tuple[str, str], cut: Any
    ) -> None:
        super().__init__(collector, pair, cut)
        self.method = method

    def forward(self, student: Any, teacher: Any, **options: Any) -> Tensor:
        try:
            self.take(student, teacher)
            pairs = self.collector.sides()
        finally:
            self.collector.clear()
        if options.get("mask") is not None and pairs[0][0] is not None:
            options["mask"] = options["mask"][:, self.collector.prefix :]
        given = getattr(self.method, "inputs_from", lambda f, z: z if f is None else f)
        loss: Tensor = self.method(*(given(f, z) for f, z in pairs), **options)
        return loss


def _pairs(layers: tuple[Sequence[str], Sequence[str]] | None) -> list[tuple[str, str]]:
    if layers is None:
        return []
    students, teachers = layers
    if len(students) != len(teachers) or not students:
        raise ValueError(
            f"criterion: {len(students)} layers of the student and {len(teachers)} of the teacher; "
            "give as many of each"
        )
    for side, names in (("student", students), ("teacher", teachers)):
        if len(set(names)) < len(names):
            raise ValueError(f"criterion: ModelOpt reads a layer once, the {side} has {names}")
    return list(zip(students, teachers, strict=True))


def _takes_logits(method: nn.Module) -> bool:
    """Whether some of what the method asks for are the networks' logits."""
    ask: Any = getattr(method, "inputs_from", None)
    if ask is None:
        return False
    features, logits = object(), object()
    got = ask(features, logits)
    return logits in (list(got.values()) if isinstance(got, dict) else [got])
