"""fit, the one training loop: a task's loss and a distiller's over a loader."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from kdops._batches import on_device, run, task_loss
from kdops._checkpoint import Checkpoint, Rows
from kdops._clip import check_options, clip_to_main, forget_factor
from kdops._progress import tqdm
from kdops._teacher_cache import TeacherCache
from kdops._term import Layers, Term, check_optimizer, own_parameters

Step = Callable[[Any, int], tuple[Tensor, Tensor | None]]


def fit(
    student: nn.Module,
    teacher: nn.Module | TeacherCache | None,
    method: nn.Module | None,
    loader: Iterable[Any],
    *,
    epochs: int,
    layers: Layers | None = None,
    at: str | Sequence[str] = "output",
    step: Step | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Any = None,
    weight: float = 1.0,
    clip: bool | Mapping[str, Any] = False,
    accumulate: int = 1,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
    amp: torch.dtype | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    checkpoint: str | Path | None = None,
    log: Any = None,
    progress: bool = True,
) -> Rows:
    """Train student on cross_entropy(logits, target) + weight · method(student, teacher).

    loader yields (images, target), or dicts by the names of the networks' arguments; the target is
    then "labels", a loss that the student computes itself is the task's, and "attention_mask" is
    the method's mask. layers = (student's, teacher's): names (at: see FeatureTap) or open taps. The
    method sees their features, without layers the logits; terms of a WeightedSum that are of logits
    (SoftTarget) see logits, the others features. method=None trains on the task alone. A
    TeacherCache stands in for a fixed teacher; the loader's dataset is then Indexed.
    step(batch, epoch) -> (task loss, distiller's loss or None) replaces all that.

    optimizer: of the student's and the method's parameters; one that lacks the method's is a
    ValueError. clip: clip_to_main, True or its options, such as {"per": "global", "every": 10}.
    accumulate=n: a step of the optimizer for n batches, on the mean of their losses; relations
    between samples are those within a batch: they do not see the n batches as one.
    wrap: makes another module of student and method as one, whose forward is a step and gives the
    losses: DistributedDataParallel, or a function that calls it with options. A sampler gets its
    epoch by set_epoch.
    amp: autocast dtype; float16 on CUDA adds a GradScaler. scheduler.step() runs per epoch.
    checkpoint: a file, written atomically after every epoch; if it exists, training goes on from it
    along the same curve (an AveragedModel as the teacher, which you update at every step of the
    optimizer, is saved too); a file that is none of this run's is a ValueError. A loss, or a weight
    after an epoch, that is not finite is a FloatingPointError and is not saved. log: a .csv path,
    or an object with add_scalar (SummaryWriter).
    Returns a row per epoch: epoch, loss, distill, ms per iteration, accuracy with evaluate.
    """
    device = next(student.parameters()).device
    free = own_parameters(method)
    if optimizer is None:
        own = [p for p in student.parameters() if p.requires_grad]
        trained = [*own, *free.values()]
        optimizer = torch.optim.SGD(trained, 0.05, 0.9, weight_decay=5e-4, nesterov=True)
    check_optimizer("fit", optimizer, method, free)
    if accumulate < 1:
        raise ValueError(f"fit: accumulate is the number of batches to a step, got {accumulate}")
    options = dict(clip) if isinstance(clip, Mapping) else {}
    check_options(list(options))
    fp16 = amp is torch.float16 and device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=fp16)
    names = ("student", "method", "optimizer", "scheduler", "scaler", "teacher")
    moving = teacher if isinstance(teacher, AveragedModel) else None
    parts = zip(names, (student, method, optimizer, scheduler, scaler, moving), strict=True)
    shuffle = getattr(loader, "generator", None) or torch.default_generator
    state = Checkpoint(checkpoint, {k: v for k, v in parts if v is not None}, shuffle)
    history = state.restore()
    back = _Backward(student, list(free.values()), weight, bool(clip), options, scaler, accumulate)
    sampler: Any = getattr(loader, "sampler", None)
    with ExitStack() as stack:
        if isinstance(teacher, TeacherCache):
            teacher.check(loader)
        step = step or _usual_step(student, Term(stack, student, teacher, method, layers, at))
        step = back.wrapped(step, method, wrap)
        for epoch in range(len(history), epochs):
            student.train()
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
            start = time.perf_counter()
            bar = tqdm(loader, f"epoch {epoch}", leave=False) if tqdm and progress else loader
            losses = _epoch(bar, epoch, step, amp, device, optimizer, back, method, state)
            state.check(epoch)
            row = dict(zip(("loss", "distill"), torch.stack(losses).mean(0).tolist(), strict=True))
            row |= {"epoch": epoch, "ms": 1000 * (time.perf_counter() - start) / len(losses)}
            if scheduler is not None:
                scheduler.step()
            if evaluate is not None:
                student.eval()
                row["accuracy"] = float(evaluate(student))
            history.append(row)
            state.save(history)
            _write_log(log, history)
    return history


def _epoch(
    batches: Iterable[Any], epoch: int, step: Step, amp: torch.dtype | None, device: torch.device,
    optimizer: torch.optim.Optimizer, back: _Backward, method: Any, state: Checkpoint,
) -> list[Tensor]:  # fmt: skip
    """The pairs of losses of one walk over the batches, with as many steps of the optimizer."""
    every = 1 if device.type == "cpu" else 50  # a look at the losses waits for a device
    losses: list[Tensor] = []
    forget_factor(back.student.parameters())  # a run that goes on from here has the same curve
    optimizer.zero_grad(set_to_none=True)
    for batch in batches:
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            main, extra = step(on_device(batch, device), epoch)
        pair = (main, torch.zeros_like(main) if extra is None else extra)
        losses.append(torch.stack(pair).detach())
        if len(losses) % every == 0:
            _check_losses(losses, every, epoch, method, state)
        back(main, extra, epoch)
        if len(losses) % back.accumulate == 0:
            back.finish(optimizer)
    if not losses:
        raise ValueError("fit: the loader gave no batches")
    if len(losses) % back.accumulate:
        back.finish(optimizer)
    _check_losses(losses, every, epoch, method, state)
    return losses


def _check_losses(
    losses: list[Tensor], last: int, epoch: int, method: Any, state: Checkpoint
) -> None:
    """FloatingPointError for the first of the last losses that is NaN or infinite."""
    begin = max(len(losses) - last, 0)
    names = "task's loss", f"loss of {type(method).__name__}" if method else "distiller's loss"
    for i, row in enumerate(torch.stack(losses[begin:]).tolist(), begin):
        for part, value in zip(names, row, strict=True):
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"fit: the {part} is {value} at epoch {epoch}, step {i}{state.kept()}; lower "
                    "the learning rate or the weight, and look at the features of that batch"
                )


@dataclass
class _Backward:
    """Adds the gradient of one batch, and takes a step when there are enough of them."""

    student: nn.Module
    free: list[nn.Parameter]
    weight: float
    clip: bool
    options: dict[str, Any]  # of clip_to_main
    scaler: Any
    accumulate: int
    replica: DistributedDataParallel | None = None

    def wrapped(self, step: Step, method: nn.Module | None, wrap: Any) -> Step:
        """The step, by the module that wrap makes of the networks it runs."""
        whole = _Whole(self.student, method, step)
        run_step = whole if wrap is None else wrap(whole)
        replicas = [m for m in (run_step, self.student) if isinstance(m, DistributedDataParallel)]
        self.replica = replicas[0] if replicas else None
        return run_step

    def __call__(self, main: Tensor, extra: Tensor | None, epoch: int) -> None:
        main = self.scaler.scale(main / self.accumulate)
        if extra is None:
            torch.autograd.backward(main)
            return
        extra = self.scaler.scale(self.weight * extra / self.accumulate)
        if not self.clip:
            torch.autograd.backward(main + extra)
            return
        params = self.student.parameters()
        group = None if self.replica is None else self.replica.process_group
        options: dict[str, Any] = {**self.options, "epoch": epoch, "group": group}
        clip_to_main(main, extra, params, free=self.free, **options)

    def finish(self, optimizer: torch.optim.Optimizer) -> None:
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)


class _Whole(nn.Module):
    """Student and method as one module, whose forward is a step."""

    def __init__(self, student: nn.Module, method: nn.Module | None, step: Step) -> None:
        super().__init__()
        self.student, self.method, self.step = student, method, step

    def forward(self, batch: Any, epoch: int) -> tuple[Tensor, Tensor | None]:
        return self.step(batch, epoch)


def _usual_step(student: nn.Module, term: Term) -> Step:
    def step(batch: Any, epoch: int) -> tuple[Tensor, Tensor | None]:
        output = run(student, batch, with_target=True)
        return task_loss(output, batch), term(batch, output)

    return step


def _write_log(log: Any, history: Rows) -> None:
    if hasattr(log, "add_scalar"):
        for name, value in history[-1].items():
            log.add_scalar(name, value, len(history) - 1)
    elif log is not None:
        rows: list[Any] = [list(history[0]), *(list(row.values()) for row in history)]
        with open(log, "w", newline="") as file:
            csv.writer(file).writerows(rows)
