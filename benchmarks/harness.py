"""How a benchmark case is run: fresh inputs, accuracy first, then time, then peak memory.

A `Problem` is one op at one shape with several providers (the published form, the best plain
PyTorch form, kdops). `measure` runs one provider of it under pytest-benchmark. The contract is
written in README.md beside this file.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdops.testing import relative_error, seeded_cotangents, tensors_in

Arguments = tuple[Any, ...]
MODES = ("forward", "both")  # both: forward and backward, as a training step does


@dataclass(frozen=True)
class Problem:
    """One comparison. `make(generator, dtype, device)` returns fresh arguments each time.

    providers: name -> function of the arguments. Names that say what users run today start with
    "published" or "torch"; ours start with "kdops". The first provider is the baseline that
    speed-ups are counted from. reference: float64 truth. invariant: see kdops.testing.OpSpec.
    tolerance: largest relative error of value and gradient at this dtype.
    """

    op: str
    label: str
    make: Callable[[torch.Generator, torch.dtype, str], Arguments]
    providers: dict[str, Callable[..., Any]]
    reference: Callable[..., Any]
    dtype: torch.dtype = torch.float32
    modes: tuple[str, ...] = ("both",)
    tolerance: float = 1e-3
    invariant: Callable[[Any], Any] = lambda result: result
    floor: dict[str, float] = field(default_factory=dict)  # bytes, flop

    @property
    def name(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.op} {self.label} {dtype}"


def step(function: Callable[..., Any], mode: str, arguments: Arguments) -> Any:
    """What is timed. The cotangent of a non-scalar result is made outside, see `prepare`."""
    *inputs, cotangents = arguments
    if mode == "forward":
        with torch.no_grad():
            return function(*inputs)
    outputs = [t for t in tensors_in(function(*inputs)) if t.requires_grad]
    wanted = [a for a in inputs if isinstance(a, Tensor) and a.requires_grad]
    return torch.autograd.grad(outputs, wanted, cotangents[: len(outputs)])


def prepare(problem: Problem, seed: int, device: str, dtype: torch.dtype) -> Arguments:
    """Fresh arguments and cotangents (shapes as the last provider, ours, returns them)."""
    generator = torch.Generator().manual_seed(seed)
    inputs = problem.make(generator, dtype, device)
    with torch.no_grad():
        shapes = [t.shape for t in tensors_in(list(problem.providers.values())[-1](*inputs))]
    cotangents = [torch.randn(s, generator=generator).to(device, dtype) for s in shapes]
    return (*inputs, cotangents)


def accuracy(problem: Problem, provider: str, device: str) -> float:
    """Largest relative error of value and gradients against the float64 reference."""
    inputs = problem.make(torch.Generator().manual_seed(99), problem.dtype, device)
    exact = tuple(
        a.detach().double().cpu().requires_grad_(a.requires_grad) if torch.is_tensor(a) else a
        for a in inputs
    )
    ours = problem.invariant(problem.providers[provider](*inputs))
    truth = problem.invariant(problem.reference(*exact))
    errors = [
        relative_error(a, e) for a, e in zip(tensors_in(ours), tensors_in(truth), strict=True)
    ]
    if "both" in problem.modes:
        pairs = [_gradients(ours, inputs), _gradients(truth, exact)]
        errors += [relative_error(a, e) for a, e in zip(*pairs, strict=True)]
    return max(errors, default=0.0)


def _gradients(result: Any, inputs: Arguments) -> list[Tensor]:
    outputs = [t for t in tensors_in(result) if t.requires_grad]
    wanted = [a for a in inputs if isinstance(a, Tensor) and a.requires_grad]
    return list(torch.autograd.grad(outputs, wanted, seeded_cotangents(outputs)))


def measure(benchmark: Any, problem: Problem, provider: str, mode: str, quick: bool) -> None:
    """One provider of one problem: asserts its accuracy, then times it with fresh inputs."""
    device = "cuda" if "cuda" in problem.label else "cpu"
    benchmark.group = f"{problem.name} {mode}"
    error = accuracy(problem, provider, device)
    benchmark.extra_info.update(
        op=problem.op,
        label=problem.label,
        dtype=str(problem.dtype).removeprefix("torch."),
        mode=mode,
        provider=provider,
        baseline=next(iter(problem.providers)),
        error=error,
        threads=torch.get_num_threads(),
        **problem.floor,
    )
    if provider.startswith("kdops"):
        assert error <= problem.tolerance, f"error {error:.3g} above {problem.tolerance:.3g}"
    seeds = iter(range(1, 1_000_000))
    function = problem.providers[provider]

    def setup() -> tuple[Arguments, dict[str, Any]]:
        return (function, mode, prepare(problem, next(seeds), device, problem.dtype)), {}

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rounds, warmup = (5, 1) if quick else (15, 3)
    benchmark.pedantic(step, setup=setup, rounds=rounds, warmup_rounds=warmup)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    benchmark.extra_info["peak_growth_mb"] = round((after - before) / 1024, 1)


def parametrise(problems: list[Problem]) -> list[tuple[Problem, str, str]]:
    """All (problem, provider, mode), the providers of one case next to each other."""
    return [(p, name, mode) for p in problems for mode in p.modes for name in p.providers]


def identify(value: Any) -> str:
    """Test ids."""
    return value.name.replace(" ", "-") if isinstance(value, Problem) else str(value)
