"""Training with a distiller: the clipped gradient of KD-SVD (clip_to_main), fine-tuning
(initialise_from), chains of networks (generations, assistant_chain) and one loop (fit) with a
progress bar, AMP, checkpoint and resume, and a CSV or TensorBoard log.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdops._checkpoint import Checkpoint, Rows
from kdops._progress import tqdm
from kdops.distributed import average_gradients
from kdops.features import FeatureTap, unwrap

Gradients = list[Tensor | None]


def gaussian_ramp(epoch: float, length: float) -> float:
    """exp(-5 (1 - epoch/length)²) below length epochs, 1 afterwards."""
    return 1.0 if epoch >= length else math.exp(-5.0 * (1.0 - epoch / length) ** 2)


def sigmoid_ramp(epoch: float) -> float:
    """σ(epoch), 1/2 at epoch 0."""
    return 1.0 / (1.0 + math.exp(-epoch))


def clip_gradients(main: Gradients, distill: Gradients, epoch: float | None = 0.0) -> Gradients:
    """Per parameter g = g_main + g_distill · min(1, ‖g_main‖ σ(epoch) / ‖g_distill‖).

    epoch=None: no σ. Zero g_distill gives g_main; a parameter out of the task's reach (None) keeps
    g_distill. Multi-tensor norms, no host synchronisation; NaN and Inf survive for a GradScaler.
    """
    ramp = 1.0 if epoch is None else sigmoid_ramp(epoch)
    result: Gradients = [m if d is None else d for m, d in zip(main, distill, strict=True)]
    groups: dict[tuple[torch.device, torch.dtype], list[tuple[int, Tensor, Tensor]]] = {}
    for i, (m, d) in enumerate(zip(main, distill, strict=True)):
        if m is not None and d is not None:
            groups.setdefault((m.device, m.dtype), []).append((i, m, d))
    for (_, dtype), items in groups.items():
        rows, ms, ds = (list(column) for column in zip(*items, strict=True))
        wide = torch.promote_types(dtype, torch.float32)
        norm_m = torch.stack(torch._foreach_norm(ms, 2, dtype=wide))
        norm_d = torch.stack(torch._foreach_norm(ds, 2, dtype=wide))
        safe = torch.where(norm_d == 0, torch.ones_like(norm_d), norm_d)
        scale: Any = (ramp * norm_m / safe).clamp_max(1).to(dtype).unbind()
        for i, m, d in zip(rows, ms, torch._foreach_mul(ds, scale), strict=True):
            result[i] = m + d
    return result


def clip_to_main(
    main: Tensor,
    distill: Tensor,
    parameters: Iterable[Tensor],
    *,
    free: Iterable[Tensor] = (),
    epoch: float | None = 0.0,
    passes: str = "two",
    group: Any = None,
) -> None:
    """Backward of two losses with the distiller clipped per parameter (see clip_gradients).

    main, distill: 0-d losses that share a graph, both times a GradScaler's scale under AMP.
    Gradients are added to ``.grad``; free parameters (the method's) get the distiller's as it is.
    passes: "two" backward passes, or "batched", both at once under vmap: measured a third slower
    than two on a CPU (ResNet8). Replaces backward(), so DDP does not average: group=
    (torch.distributed.group.WORLD) averages before clipping.
    """
    params = [p for p in parameters if p.requires_grad]
    everything = params + [p for p in free if p.requires_grad]
    if passes == "two":
        g_main: Gradients = list(
            torch.autograd.grad(main, params, retain_graph=True, allow_unused=True)
        )
        g_distill: Gradients = list(torch.autograd.grad(distill, everything, allow_unused=True))
    elif passes == "batched":
        eye = torch.eye(2, dtype=main.dtype, device=main.device)
        seeds = (eye[0], eye[1].to(distill.dtype))
        both = torch.autograd.grad(
            (main, distill), everything, seeds, is_grads_batched=True, allow_unused=True
        )
        g_main = [None if g is None else g[0] for g in both[: len(params)]]
        g_distill = [None if g is None else g[1] for g in both]
    else:
        raise ValueError(f"clip_to_main: passes is 'two' or 'batched', got {passes!r}")
    g_main += [None] * (len(everything) - len(params))
    if group is not None:
        average_gradients(g_main + g_distill, group)
    with torch.no_grad():
        for p, g in zip(everything, clip_gradients(g_main, g_distill, epoch=epoch), strict=True):
            if g is not None:
                p.grad = g if p.grad is None else p.grad + g


@dataclass
class Initialisation:
    """What initialise_from did, by parameter and buffer name."""

    copied: list[str]
    mismatched: dict[str, tuple[list[int], list[int]]]  # student's shape, source's shape
    missing: list[str]  # in the student only
    unused: list[str]  # in the source only


def initialise_from(student: nn.Module, source: nn.Module) -> Initialisation:
    """Fine-tuning: copy every parameter and buffer of equal name and shape; report the others."""
    mine, theirs = unwrap(student).state_dict(), unwrap(source).state_dict()
    both = [k for k in mine if k in theirs]
    copied = [k for k in both if mine[k].shape == theirs[k].shape]
    for name in copied:
        mine[name].copy_(theirs[name])
    other = {k: (list(mine[k].shape), list(theirs[k].shape)) for k in both if k not in copied}
    missing = [k for k in mine if k not in theirs]
    return Initialisation(copied, other, missing, [k for k in theirs if k not in mine])


Train = Callable[[nn.Module, nn.Module | None], object]


def generations(make: Callable[[], nn.Module], train: Train, count: int) -> list[nn.Module]:
    """Born-again networks: train(net, previous) for each of count fresh nets, None at first."""
    nets = [make() for _ in range(count)]
    for i, net in enumerate(nets):
        train(net, nets[i - 1] if i else None)
    return nets


def assistant_chain(teacher: nn.Module, learners: Sequence[nn.Module], train: Train) -> nn.Module:
    """Teacher assistants: train(learner, teacher) down the chain; the last learner is returned."""
    for learner in learners:
        train(learner, teacher)
        teacher = learner
    return teacher


Step = Callable[[Any, int], tuple[Tensor, Tensor | None]]


def fit(
    student: nn.Module,
    teacher: nn.Module | None,
    method: nn.Module | None,
    loader: Iterable[Any],
    *,
    epochs: int,
    layers: tuple[Sequence[str], Sequence[str]] | None = None,
    at: str | Sequence[str] = "output",
    step: Step | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Any = None,
    weight: float = 1.0,
    clip: bool = False,
    amp: torch.dtype | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    checkpoint: str | Path | None = None,
    log: Any = None,
    progress: bool = True,
) -> Rows:
    """Train student on cross_entropy(logits, target) + weight · method(student, teacher).

    loader yields (images, target). With layers = (student names, teacher names) the method sees
    the tapped features (at: see FeatureTap), else the logits. method=None trains on the task alone.
    step(batch, epoch) -> (task loss, distiller's loss or None) replaces that rule. clip=True uses
    clip_to_main. amp: autocast dtype; float16 on CUDA adds a GradScaler. scheduler.step() runs per
    epoch. checkpoint: a file, written atomically after every epoch; if it exists, training goes on
    from it along the same curve; a file that is none of this run's is a ValueError. A loss, or a
    weight after an epoch, that is not finite is a FloatingPointError and is not saved. log: a .csv
    path, or an object with add_scalar (SummaryWriter).
    Returns a row per epoch: epoch, loss, distill, ms per iteration, accuracy with evaluate.
    """
    device = next(student.parameters()).device
    free = [p for p in method.parameters() if p.requires_grad] if method is not None else []
    if optimizer is None:
        own = [p for p in student.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(own + free, 0.05, 0.9, weight_decay=5e-4, nesterov=True)
    fp16 = amp is torch.float16 and device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=fp16)
    names = ("student", "method", "optimizer", "scheduler", "scaler")
    parts = zip(names, (student, method, optimizer, scheduler, scaler), strict=True)
    shuffle = getattr(loader, "generator", None) or torch.default_generator
    state = Checkpoint(checkpoint, {k: v for k, v in parts if v is not None}, shuffle)
    history = state.restore()
    every = 1 if device.type == "cpu" else 50  # a look at the losses waits for a device
    with ExitStack() as stack:
        step = step or _usual_step(stack, student, teacher, method, layers, at)
        for epoch in range(len(history), epochs):
            student.train()
            start, losses = time.perf_counter(), []
            bar = tqdm(loader, f"epoch {epoch}", leave=False) if tqdm and progress else loader
            for batch in bar:
                with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
                    main, extra = step([x.to(device, non_blocking=True) for x in batch], epoch)
                pair = (main, torch.zeros_like(main) if extra is None else extra)
                losses.append(torch.stack(pair).detach())
                if len(losses) % every == 0:
                    _check_losses(losses, every, epoch, method, state)
                optimizer.zero_grad(set_to_none=True)
                _backward(main, extra, weight, scaler, student, free, epoch if clip else None)
                scaler.step(optimizer)
                scaler.update()
            if not losses:
                raise ValueError("fit: the loader gave no batches")
            _check_losses(losses, every, epoch, method, state)
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


def _backward(
    main: Tensor, extra: Tensor | None, weight: float, scaler: Any, student: nn.Module,
    free: list[nn.Parameter], clip_epoch: int | None,
) -> None:  # fmt: skip
    if extra is None:
        torch.autograd.backward(scaler.scale(main))
    elif clip_epoch is None:
        torch.autograd.backward(scaler.scale(main + weight * extra))
    else:
        pair = scaler.scale(main), scaler.scale(weight * extra)
        clip_to_main(*pair, student.parameters(), free=free, epoch=clip_epoch)


def _usual_step(
    stack: ExitStack, student: nn.Module, teacher: Any, method: Any, layers: Any, at: Any
) -> Step:
    nets = zip((student, teacher), layers or (), strict=False)
    taps = [stack.enter_context(FeatureTap(net, n, at=at)) for net, n in nets if net is not None]

    def step(batch: Any, epoch: int) -> tuple[Tensor, Tensor | None]:
        images, target = batch
        logits = student(images)
        if method is None or teacher is None:
            return F.cross_entropy(logits, target), None
        with torch.no_grad():
            known = teacher.eval()(images)
        pair = [tap.features for tap in taps] or [logits, known]
        return F.cross_entropy(logits, target), method(*pair)

    return step


def _write_log(log: Any, history: Rows) -> None:
    if hasattr(log, "add_scalar"):
        for name, value in history[-1].items():
            log.add_scalar(name, value, len(history) - 1)
    elif log is not None:
        rows: list[Any] = [list(history[0]), *(list(row.values()) for row in history)]
        with open(log, "w", newline="") as file:
            csv.writer(file).writerows(rows)
