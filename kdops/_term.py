"""The distiller's loss of a batch on which the student has just run.

What fit and the integrations share: taps, the teacher's pass, which inputs a method gets, the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from kdops._batches import logits_of, mask_of, run, target_of
from kdops._teacher_cache import Known, TeacherCache, index_of
from kdops.features import FeatureTap

Layers = tuple[Sequence[str] | FeatureTap, Sequence[str] | FeatureTap]


class Term:
    """term(batch, output) after output = student(batch): the method's loss, None without one.

    The arguments are those of fit; taps that are made here close with the stack.
    """

    def __init__(
        self, stack: ExitStack, student: nn.Module, teacher: nn.Module | TeacherCache | None,
        method: nn.Module | None, layers: Layers | None, at: str | Sequence[str] = "output",
    ) -> None:  # fmt: skip
        self.method: Any = None if teacher is None else method
        self.tap = _tap(stack, student, layers[0], at) if layers else None
        if isinstance(teacher, TeacherCache):
            own = layers is not None and isinstance(layers[0], FeatureTap)
            self.known = teacher.reader(layers[1] if layers else None, None if own else at)
        else:
            self.known = _knowledge(stack, teacher, layers[1] if layers else None, at)

    def __call__(self, batch: Any, output: Any) -> Tensor | None:
        if self.method is None:
            return None
        features, logits = self.known(batch)
        pairs = [(self.tap.features if self.tap else None, logits_of(output)), (features, logits)]
        loss: Tensor
        if not hasattr(self.method, "inputs_from"):  # a module of the user's
            loss = self.method(*(z if f is None else f for f, z in pairs))
            return loss
        mask = mask_of(batch)
        if mask is not None and self.tap is not None:
            mask = mask[:, self.tap.prefix :]
        options = {} if mask is None else {"mask": mask}
        if hasattr(self.method, "batch_options"):
            options |= self.method.batch_options(lambda name: self._part(batch, name))
        loss = self.method(*(self.method.inputs_from(f, z) for f, z in pairs), **options)
        return loss

    def _part(self, batch: Any, name: str) -> Any:
        """What a method needs of a batch besides features; no target in a batch of inputs alone."""
        if name == "index":
            return index_of(batch, type(self.method).__name__)
        return None if isinstance(batch, Tensor) else target_of(batch)


def own_parameters(method: nn.Module | None) -> dict[str, nn.Parameter]:
    """The method's trained parameters by name: connectors, regressors."""
    named = method.named_parameters() if method is not None else ()
    return {name: p for name, p in named if p.requires_grad}


def check_optimizer(
    owner: str, optimizer: torch.optim.Optimizer, method: nn.Module | None,
    free: Mapping[str, Tensor],
) -> None:  # fmt: skip
    """It holds the method's own parameters, or a ValueError of that owner."""
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if left := [name for name, p in free.items() if id(p) not in known]:
        more = ", ..." if len(left) > 3 else ""
        raise ValueError(
            f"{owner}: the optimizer has not {len(left)} trained parameters of "
            f"{type(method).__name__} ({', '.join(left[:3])}{more}): give it "
            "[*student.parameters(), *method.parameters()]"
        )


def _tap(stack: ExitStack, net: nn.Module, names: Any, at: Any) -> FeatureTap:
    """An open tap as it is, one of these names until the end of the run."""
    return (
        names
        if isinstance(names, FeatureTap)
        else stack.enter_context(FeatureTap(net, names, at=at))
    )


def _knowledge(stack: ExitStack, teacher: Any, names: Any, at: Any) -> Callable[[Any], Known]:
    """batch -> the teacher's features (None without layers) and logits."""
    tap = None if names is None or teacher is None else _tap(stack, teacher, names, at)

    def known(batch: Any) -> Known:
        with torch.no_grad():
            output = run(teacher.eval(), batch)
        return tap.features if tap else None, logits_of(output)

    return known
