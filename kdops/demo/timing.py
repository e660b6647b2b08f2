"""Where a training iteration's time goes: the networks, the method, the second pass of clipping."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kdops
from kdops._progress import tqdm
from kdops.demo.methods import RECIPES, Prepared, fit_by, sgd
from kdops.demo.nets import Net
from kdops.training import Step

if TYPE_CHECKING:
    from kdops.demo.run import Demo

ITERATIONS = 3  # in a round


def split(demo: Demo, names: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
    """ms per iteration of each method, {"kdops": parts, "plain": parts or None}.

    Medians over rounds, in which all methods, parts and backends take turns; the first is warm-up.
    """
    runs: dict[tuple[str, ...], Callable[[int], float]] = {}
    keys: dict[str, str] = {}  # the networks of a method: its teacher, which several have
    for name in names:
        student, prepared = demo.prepare(name, demo.args.images[0], 0)
        keys[name] = str(id(prepared.teacher))
        runs.setdefault((keys[name],), _run(demo, name, student, prepared, networks=True))
        for backend, clip in _variants(name):
            part = "clipped" if clip else "once"
            runs[name, backend, part] = _run(demo, name, student, prepared, backend, clip)
    found: dict[tuple[str, ...], list[float]] = {key: [] for key in runs}
    for i in tqdm(range(rounds + 1), "timing", leave=False) if tqdm else range(rounds + 1):
        for key, run in runs.items():
            ms = run(i)
            if i:
                found[key].append(ms)
    medians = {key: statistics.median(values) for key, values in found.items()}
    return {name: {b: _parts(medians, keys[name], name, b) for b in ("kdops", "plain")}
            for name in names}  # fmt: skip


def _variants(name: str) -> list[tuple[str, bool]]:
    """(backend, whether clipped) of the iterations to time besides the networks' own."""
    if name not in RECIPES:
        return []
    backends = ["kdops", "plain"] if RECIPES[name].operators else ["kdops"]
    return [(b, clip) for b in backends for clip in ([False, True] if RECIPES[name].clip
                                                     else [False])]  # fmt: skip


def _parts(
    medians: dict[tuple[str, ...], float], networks: str, name: str, backend: str
) -> dict[str, float] | None:
    """The parts add up to the measured iteration; one that the noise makes negative is zero."""
    alone = medians[networks,]
    once = medians.get((name, backend, "once"))
    if once is None:
        return {"network": alone, "method": 0.0, "second": 0.0} if backend == "kdops" else None
    total = medians.get((name, backend, "clipped"), once)
    once = min(once, total)
    alone = min(alone, once)
    return {"network": alone, "method": once - alone, "second": total - once}


def _run(
    demo: Demo, name: str, student: Net, prepared: Prepared, backend: str = "kdops",
    clip: bool = False, networks: bool = False,
) -> Callable[[int], float]:  # fmt: skip
    """A function that trains a few iterations and gives the ms of one."""
    optimizer = sgd(student, prepared.method, lr=demo.args.lr)
    step = _networks(student, prepared.teacher) if networks else prepared.step

    def run(seed: int) -> float:
        loader = demo.loader(demo.part(demo.args.images[0], 0), seed, ITERATIONS)
        with kdops.backend("reference") if backend == "plain" else nullcontext():
            rows = fit_by(RECIPES.get(name), student, prepared, loader, optimizer, 1, step=step,
                          clip=clip)  # fmt: skip
        return rows[0]["ms"]

    return run


def _networks(student: nn.Module, teacher: nn.Module | None) -> Step:
    """An iteration without a method: the student's two passes, and the teacher's one."""

    def step(batch: Any, epoch: int) -> tuple[Tensor, None]:
        images, target = batch[:2]
        loss = F.cross_entropy(student(images), target)
        if teacher is not None:
            with torch.no_grad():
                teacher.eval()(images)
        return loss, None

    return step
