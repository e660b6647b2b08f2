"""How a benchmark case is run: fresh inputs, accuracy first, then time, then peak memory.

A `Problem` is one op at one shape with several providers (the published form, the best plain
PyTorch form, kdops). `measure` runs one provider of it under pytest-benchmark. The contract is
written in README.md beside this file.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
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
    slow: left out by --quick. extra: more fields for the record (a sweep's size, ...).
    check: False where the float64 reference is out of reach; no speed-up is reported then.
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
    slow: bool = False
    check: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

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


_shapes: dict[str, list[torch.Size]] = {}
_errors: dict[tuple[str, str], float] = {}
_truth: dict[str, list[Tensor]] = {}  # of the current problem only


def prepare(problem: Problem, seed: int, device: str, dtype: torch.dtype) -> Arguments:
    """Fresh arguments and cotangents (shapes as the last provider, ours, returns them)."""
    generator = torch.Generator().manual_seed(seed)
    inputs = problem.make(generator, dtype, device)
    if problem.name not in _shapes:
        with torch.no_grad():
            result = list(problem.providers.values())[-1](*inputs)
        _shapes[problem.name] = [t.shape for t in tensors_in(result)]
    shapes = _shapes[problem.name]
    cotangents = [torch.randn(s, generator=generator).to(device, dtype) for s in shapes]
    return (*inputs, cotangents)


def accuracy(problem: Problem, provider: str, device: str) -> float:
    """Largest relative error of value and gradients against the float64 reference; NaN unchecked.

    The error of a provider is computed once, the reference once per problem.
    """
    if not problem.check:
        return float("nan")
    key = (problem.name, provider)
    if key not in _errors:
        inputs = problem.make(torch.Generator().manual_seed(99), problem.dtype, device)
        if problem.name not in _truth:
            _truth.clear()
            exact = tuple(
                a.detach().double().cpu().requires_grad_(a.requires_grad)
                if torch.is_tensor(a)
                else a
                for a in inputs
            )
            _truth[problem.name] = _value_and_gradients(problem, problem.reference, exact)
        ours = _value_and_gradients(problem, problem.providers[provider], inputs)
        pairs = zip(ours, _truth[problem.name], strict=True)
        _errors[key] = max((relative_error(a, e) for a, e in pairs), default=0.0)
    return _errors[key]


def _value_and_gradients(
    problem: Problem, function: Callable[..., Any], inputs: Arguments
) -> list[Tensor]:
    result = problem.invariant(function(*inputs))
    values = [t.detach() for t in tensors_in(result)]
    if "both" not in problem.modes:
        return values
    outputs = [t for t in tensors_in(result) if t.requires_grad]
    wanted = [a for a in inputs if isinstance(a, Tensor) and a.requires_grad]
    return values + list(torch.autograd.grad(outputs, wanted, seeded_cotangents(outputs)))


def rounds_for(seconds: float, quick: bool) -> int:
    """As many rounds as fit the time of one case: 5 at most and 3 at least with --quick."""
    most, budget = (5, 0.5) if quick else (15, 6.0)
    return max(3, min(most, int(budget / max(seconds, 1e-9))))


def measure(benchmark: Any, problem: Problem, provider: str, mode: str, quick: bool) -> None:
    """One provider of one problem: asserts its accuracy, then times it with fresh inputs."""
    device = "cuda" if "cuda" in problem.label else "cpu"
    benchmark.group = f"{problem.name} {mode}"
    function = problem.providers[provider]
    try:
        error = accuracy(problem, provider, device)
    except Exception as failure:
        if provider.startswith("torch.compile"):  # an alternative that does not exist here
            pytest.skip(f"{provider}: {type(failure).__name__}")
        raise
    benchmark.extra_info.update(
        op=problem.op,
        label=problem.label,
        dtype=str(problem.dtype).removeprefix("torch."),
        mode=mode,
        provider=provider,
        baseline=next(iter(problem.providers)),
        error=error if error == error else None,
        tolerance=problem.tolerance,
        threads=torch.get_num_threads(),
        **problem.floor,
        **problem.extra,
    )
    if provider.startswith("kdops") and problem.check:
        assert error <= problem.tolerance, f"error {error:.3g} above {problem.tolerance:.3g}"
    seeds = iter(range(1, 1_000_000))

    def setup() -> tuple[Arguments, dict[str, Any]]:
        return (function, mode, prepare(problem, next(seeds), device, problem.dtype)), {}

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):  # the second is warm
        arguments = setup()[0]
        start = time.perf_counter()
        step(*arguments)
        once = time.perf_counter() - start
        if once > 1.0:
            break
    benchmark.pedantic(step, setup=setup, rounds=rounds_for(once, quick))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    benchmark.extra_info["peak_growth_mb"] = round((after - before) / 1024, 1)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile of a plain form, compiled at its first call. Name it "torch.compile ..."."""
    cache: list[Callable[..., Any]] = []

    def call(*arguments: Any) -> Any:
        if not cache:
            torch._dynamo.reset()
            cache.append(torch.compile(function, dynamic=False))
        return cache[0](*arguments)

    return call


def parametrise(problems: list[Problem]) -> list[Any]:
    """All (problem, provider, mode), the providers of one case next to each other.

    Slow problems and every torch.compile (its compilation takes tens of seconds) are marked slow.
    """
    cases = []
    for problem in problems:
        for mode in problem.modes:
            for name in problem.providers:
                slow = problem.slow or name.startswith("torch.compile")
                marks = [pytest.mark.slow] if slow else []
                cases.append(pytest.param(problem, name, mode, marks=marks))
    return cases


def identify(value: Any) -> str:
    """Test ids."""
    return value.name.replace(" ", "-") if isinstance(value, Problem) else str(value)
