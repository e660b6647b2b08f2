"""The gradient of a task with that of a distiller, clipped to it: clip_to_main.

The published rule clips every parameter by itself, which takes a backward pass per loss at every
step. With one factor for all parameters, measured at every n-th step and held in between, one pass
of main + c · distill does the other steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from kdops.distributed import average_gradients

Gradients = list[Tensor | None]
LEAST = 1e-20  # of a held factor: a method's own parameters get their gradient by dividing by it


def gaussian_ramp(epoch: float, length: float) -> float:
    """exp(-5 (1 - epoch/length)²) below length epochs, 1 afterwards."""
    return 1.0 if epoch >= length else math.exp(-5.0 * (1.0 - epoch / length) ** 2)


def sigmoid_ramp(epoch: float) -> float:
    """σ(epoch), 1/2 at epoch 0."""
    return 1.0 / (1.0 + math.exp(-epoch))


def clip_gradients(
    main: Gradients, distill: Gradients, epoch: float | None = 0.0, *, per: str = "parameter"
) -> Gradients:
    """Per parameter g = g_main + g_distill · min(1, ‖g_main‖ σ(epoch) / ‖g_distill‖).

    epoch=None: no σ. Zero g_distill gives g_main; a parameter out of the task's reach (None) keeps
    g_distill. per="global": the norms are those of all parameters together, and so is the factor,
    also where the task does not reach. Multi-tensor norms, no host synchronisation; NaN and Inf
    survive for a GradScaler.
    """
    if per == "global":
        return _combined(main, distill, global_factor(main, distill, epoch))
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


def global_factor(main: Gradients, distill: Gradients, epoch: float | None = 0.0) -> Tensor:
    """c = min(1, ‖g_main‖ σ(epoch) / ‖g_distill‖) over all parameters, 0-d; NaN where a norm is
    not finite."""
    ramp = 1.0 if epoch is None else sigmoid_ramp(epoch)
    norm_d = total_norm(distill)
    norm_m = total_norm(main).to(norm_d)
    safe = torch.where(norm_d == 0, torch.ones_like(norm_d), norm_d)
    factor = (ramp * norm_m / safe).clamp_max(1)
    return torch.where((norm_m + norm_d).isfinite(), factor, torch.full_like(factor, math.nan))


def total_norm(gradients: Gradients) -> Tensor:
    """The L2 norm of all gradients together, in fp32 or wider."""
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for g in gradients:
        if g is not None:
            groups.setdefault((g.device, g.dtype), []).append(g)
    norms: list[Tensor] = []
    for (_, dtype), items in groups.items():
        wide = torch.promote_types(dtype, torch.float32)
        parts = torch.stack(torch._foreach_norm(items, 2, dtype=wide))
        norms.append(torch.linalg.vector_norm(parts).to(norms[0] if norms else parts))
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def _combined(main: Gradients, distill: Gradients, factor: Tensor) -> Gradients:
    """g_main + c · g_distill."""
    result: Gradients = []
    for m, d in zip(main, distill, strict=True):
        scaled = None if d is None else factor.to(d) * d
        result.append(m if scaled is None else scaled if m is None else m + scaled)
    return result


@dataclass
class _Held:
    """What clip_to_main remembers between its calls on one student: the factor and its age."""

    factor: Tensor = field(default_factory=lambda: torch.tensor(LEAST))
    age: int = 0

    def take(self, factor: Tensor) -> None:
        """A new factor, unless it comes of gradients that overflowed under a loss scale."""
        old = self.factor.to(factor)
        self.factor = torch.where(factor.isfinite(), factor.clamp_min(LEAST), old)


_HELD = WeakIdKeyDictionary()  # by the student's first parameter


def forget_factor(parameters: Iterable[Tensor]) -> None:
    """Let the next clip_to_main(every=n) on these parameters measure its factor anew."""
    for p in parameters:
        _HELD.pop(p, None)


def clip_to_main(
    main: Tensor,
    distill: Tensor,
    parameters: Iterable[Tensor],
    *,
    free: Iterable[Tensor] = (),
    epoch: float | None = 0.0,
    passes: str = "two",
    per: str = "parameter",
    every: int = 1,
    group: Any = None,
) -> None:
    """Backward of two losses with the distiller clipped per parameter (see clip_gradients).

    main, distill: 0-d losses that share a graph, both times a GradScaler's scale under AMP.
    Gradients are added to ``.grad``; free parameters (the method's) get the distiller's as it is.
    passes: "two" backward passes, or "batched", both at once under vmap: measured a third slower
    than two on a CPU (ResNet8). Replaces backward(), so DDP does not average: group=
    (torch.distributed.group.WORLD) averages before clipping.

    per: "parameter", the published rule, or "global", one factor for all parameters. every=n, with
    "global": two passes at every n-th call on these parameters, which measure the factor; it is
    held in between, where one backward of main + factor · distill is exact for it: 1 + 1/n passes a
    step (docs/training.md has the accuracy). For one distiller per student.
    """
    _check(passes, per, every)
    params = [p for p in parameters if p.requires_grad]
    own = [p for p in free if p.requires_grad]
    held = _HELD.setdefault(params[0], _Held()) if every > 1 and params else _Held()
    if held.age % every:
        gradients = _one_pass(main, distill, params, own, held.factor, group)
    else:
        g_main, g_distill = _two_passes(main, distill, params, own, passes, group)
        gradients, count = [], len(params)
        with torch.no_grad():
            if every > 1:
                held.take(global_factor(g_main, g_distill[:count], epoch))
            gradients += clip_gradients(g_main, g_distill[:count], epoch, per=per)
            gradients += g_distill[count:]
    held.age += 1
    for p, g in zip([*params, *own], gradients, strict=True):
        if g is not None:
            p.grad = g if p.grad is None else p.grad + g


def _check(passes: str, per: str, every: int) -> None:
    if passes not in ("two", "batched"):
        raise ValueError(f"clip_to_main: passes is 'two' or 'batched', got {passes!r}")
    if per not in ("parameter", "global"):
        raise ValueError(f"clip_to_main: per is 'parameter' or 'global', got {per!r}")
    if every < 1 or (every > 1 and per != "global"):
        raise ValueError(
            f"clip_to_main: every={every} with per={per!r}: a factor is held for all parameters "
            "together, per='global', for one step or more"
        )


def _one_pass(
    main: Tensor, distill: Tensor, params: list[Tensor], own: list[Tensor], factor: Tensor,
    group: Any,
) -> Gradients:  # fmt: skip
    """Of main + factor · distill; the method's own parameters get distill's, without the factor."""
    both = main + factor.to(distill) * distill
    found: Gradients = list(torch.autograd.grad(both, [*params, *own], allow_unused=True))
    if group is not None:
        average_gradients(found, group)
    with torch.no_grad():
        rest: Gradients = [None if g is None else g / factor.to(g) for g in found[len(params) :]]
    return found[: len(params)] + rest


def _two_passes(
    main: Tensor, distill: Tensor, params: list[Tensor], own: list[Tensor], passes: str, group: Any
) -> tuple[Gradients, Gradients]:
    """The gradient of main at params, and of distill at params and own."""
    everything = [*params, *own]
    g_main: Gradients
    g_distill: Gradients
    if passes == "two":
        g_main = list(torch.autograd.grad(main, params, retain_graph=True, allow_unused=True))
        g_distill = list(torch.autograd.grad(distill, everything, allow_unused=True))
    else:
        eye = torch.eye(2, dtype=main.dtype, device=main.device)
        seeds = (eye[0], eye[1].to(distill.dtype))
        both = torch.autograd.grad(
            (main, distill), everything, seeds, is_grads_batched=True, allow_unused=True
        )
        g_main = [None if g is None else g[0] for g in both[: len(params)]]
        g_distill = [None if g is None else g[1] for g in both]
    if group is not None:
        average_gradients(g_main + g_distill, group)
    return g_main, g_distill


def check_options(options: Sequence[str]) -> None:
    """Of fit(clip={...})."""
    unknown = sorted(set(options) - {"per", "every", "passes"})
    if unknown:
        raise ValueError(f"fit: clip takes per, every and passes of clip_to_main, got {unknown}")
