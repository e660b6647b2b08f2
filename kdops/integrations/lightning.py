"""Distillation as a LightningModule."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from kdops._batches import on_device, run, task_loss
from kdops._teacher_cache import TeacherCache
from kdops._term import Layers, Term
from kdops.integrations import missing

try:
    from lightning.pytorch import LightningModule
except ImportError as error:
    raise missing("lightning", "lightning", error) from error


class DistillationModule(LightningModule):
    """task's loss + weight · method(student, teacher), for Lightning's Trainer.

    >>> module = DistillationModule(student, teacher, method, layers=(names, names),
    ...     optimizer=lambda parameters: torch.optim.AdamW(parameters, 1e-3))
    >>> Trainer(max_epochs=100).fit(module, loader)

    Batches, layers, at and the task's loss are those of kdops.training.fit. Student and method are
    parts of the module: Lightning moves and saves both, resumes both from ckpt_path, and wraps both
    in one DistributedDataParallel. The teacher is no part of it: it is neither trained nor saved
    (a TeacherCache is possible). optimizer gets the trained parameters of both and returns what
    configure_optimizers may return.

    A training_step of your own takes self.distillation(batch, output), the method's loss after
    output = self.student(...). The log has "task" and "distill".
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module | TeacherCache, method: nn.Module, *,
        optimizer: Callable[[list[nn.Parameter]], Any], layers: Layers | None = None,
        at: Any = "output", weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.student, self.method = student, method
        self._teacher = (teacher,)  # out of sight of nn.Module
        self._make_optimizer = optimizer
        self._layers, self._at, self.weight = layers, at, weight
        self._stack = ExitStack()
        self._term: Term | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.student(*args, **kwargs)

    def on_fit_start(self) -> None:
        [teacher] = self._teacher
        if isinstance(teacher, nn.Module):
            teacher.to(self.device)
        parts = (self.student, teacher, self.method)
        self._term = Term(self._stack, *parts, self._layers, self._at)

    def teardown(self, stage: str) -> None:
        """Also after an error: no tap outlives the run."""
        self._stack.close()
        self._term = None

    def distillation(self, batch: Any, output: Any) -> Tensor:
        """The method's loss of the batch on which the student has just given that output."""
        if self._term is None:
            raise RuntimeError(
                f"{type(self).__name__}: the taps are open while Trainer.fit runs, not outside"
            )
        loss = self._term(on_device(batch, self.device), output)
        assert loss is not None
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batch = on_device(batch, self.device)
        output = run(self.student, batch, with_target=True)
        task, distill = task_loss(output, batch), self.distillation(batch, output)
        self.log_dict({"task": task.detach(), "distill": distill.detach()}, prog_bar=True)
        return task + self.weight * distill

    def configure_optimizers(self) -> Any:
        return self._make_optimizer([p for p in self.parameters() if p.requires_grad])
