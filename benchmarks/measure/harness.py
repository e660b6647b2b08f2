"""How a benchmark case is run: fresh inputs, accuracy first, then time, then peak memory.

A `Problem` (problem.py) is one op at one shape with several providers: the published form, the best
plain PyTorch form, kdops. `Session.measure` runs one provider of it under pytest-benchmark (the
fixture `measured`); on the CPU the providers of a problem are timed in turn, since a machine drifts
by more than they differ (paired.py). The contract is written in ../README.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.measure import clock, gpu, paired
from benchmarks.measure.problem import Arguments, Problem, on_devices
from kdops.testing import relative_error, seeded_cotangents, tensors_in


def step(function: Callable[..., Any], mode: str, arguments: Arguments) -> Any:
    """What is timed. The cotangent of a non-scalar result is made outside."""
    if mode == "backward":
        return torch.autograd.grad(*arguments)
    *inputs, _ = arguments
    if mode == "forward":
        with torch.no_grad():
            return function(*inputs)
    return torch.autograd.grad(*graph(function, arguments))


def graph(function: Callable[..., Any], arguments: Arguments) -> Arguments:
    """A forward pass: (outputs, what their gradient is taken to, cotangents). Serves once."""
    *inputs, cotangents = arguments
    outputs = [t for t in tensors_in(function(*inputs)) if t.requires_grad]
    wanted = [a for a in inputs if isinstance(a, Tensor) and a.requires_grad]
    return outputs, wanted, cotangents[: len(outputs)]


@dataclass
class _Known:
    """What has been found out about the problem whose cases are running."""

    name: str = ""
    shapes: list[torch.Size] | None = None  # of a result, as the last provider, ours, returns it
    truth: list[Tensor] | None = None
    errors: dict[str, float] = field(default_factory=dict)  # by provider
    timed: dict[str, dict[str, paired.Timed]] = field(default_factory=dict)  # by mode, provider


class Session:
    """One run of the benchmarks. `cases`: the parameters of all tests that will run.

    The providers of a problem are timed together, so the first of its cases measures those of all.
    Only the current problem's inputs and times are kept: the order in which tests run decides how
    much is computed anew, never what is timed.
    """

    def __init__(self, quick: bool, cases: Iterable[dict[str, Any]] = ()) -> None:
        self.quick = quick
        self._selected: dict[tuple[str, str], list[str]] = {}
        self._known = _Known()
        for case in cases:
            if isinstance(case.get("problem"), Problem):
                key = (case["problem"].name, case["mode"])
                self._selected.setdefault(key, []).append(case["provider"])

    def measure(self, benchmark: Any, problem: Problem, provider: str, mode: str) -> None:
        """One provider of one problem: asserts its accuracy, then times it with fresh inputs."""
        benchmark.group = group_of(problem, mode)
        try:
            error = self.accuracy(problem, provider)
        except Exception as failure:
            _skip_alternative(problem, provider, failure)
            raise
        benchmark.extra_info.update(_description(problem, provider, mode, error))
        if provider.startswith("kdops") and problem.check:
            assert error <= problem.tolerance, f"error {error:.3g} above {problem.tolerance:.3g}"
        if problem.device == "cuda":
            self._measure_on_gpu(benchmark, problem, provider, mode)
            return
        timed = self._timings(problem, mode, provider)[provider]
        if timed.failure is not None:
            _skip_alternative(problem, provider, timed.failure)
            raise timed.failure
        benchmark.extra_info["peak_mb"] = timed.peak_mb
        clock.replay(benchmark, timed.durations)

    def accuracy(self, problem: Problem, provider: str) -> float:
        """Largest relative error of value and gradients against float64; NaN where unchecked."""
        if not problem.check:
            return float("nan")
        known = self._about(problem)
        if provider not in known.errors:
            inputs = problem.make(torch.Generator().manual_seed(99), problem.dtype, problem.device)
            if known.truth is None:
                exact = tuple(
                    a.detach().double().cpu().requires_grad_(a.requires_grad)
                    if torch.is_tensor(a)
                    else a
                    for a in inputs
                )
                known.truth = _value_and_gradients(problem, problem.reference, exact)
            ours = _value_and_gradients(problem, problem.providers[provider], inputs)
            pairs = zip(ours, known.truth, strict=True)
            known.errors[provider] = max((relative_error(a, e) for a, e in pairs), default=0.0)
        return known.errors[provider]

    def _about(self, problem: Problem) -> _Known:
        if self._known.name != problem.name:
            self._known = _Known(problem.name)
        return self._known

    def _measure_on_gpu(self, benchmark: Any, problem: Problem, provider: str, mode: str) -> None:
        run, seeds = self.run_of(problem, provider, mode), iter(range(1, 1_000_000))

        def fresh() -> Arguments:
            return run.arguments(next(seeds))

        peak = paired.warm_up(run, problem.device, _compiles(provider))[2]
        benchmark.extra_info["peak_mb"] = peak
        timing = gpu.measure_once if mode == "backward" else gpu.measure
        timing(benchmark, step, fresh, 3 if self.quick else 7)

    def _timings(self, problem: Problem, mode: str, provider: str) -> dict[str, paired.Timed]:
        """Seconds of all selected providers of a problem, taken in turn (paired.interleave)."""
        timed = self._about(problem).timed
        if provider not in timed.get(mode, {}):
            selected = self._selected.get((problem.name, mode), [provider])
            names = [name for name in selected if self._is_right(problem, name)]
            runs = {name: self.run_of(problem, name, mode) for name in names}
            rounds = partial(rounds_for, quick=self.quick, budget=problem.budget)
            compiled = [name for name in names if _compiles(name)]
            timed[mode] = paired.interleave(runs, problem.device, rounds, compiled)
        return timed[mode]

    def _is_right(self, problem: Problem, provider: str) -> bool:
        """Whether there is something to time; its own case says what is wrong."""
        try:
            error = self.accuracy(problem, provider)
        except Exception:
            return False
        return not (provider.startswith("kdops") and error > problem.tolerance)

    def run_of(self, problem: Problem, provider: str, mode: str) -> paired.Run:
        """What is timed of a provider, and how its fresh arguments are made."""
        function = problem.providers[provider]

        def fresh(seed: int) -> Arguments:
            arguments = self._prepare(problem, mode, seed)
            return function, mode, graph(function, arguments) if mode == "backward" else arguments

        return paired.Run(step, fresh)

    def _prepare(self, problem: Problem, mode: str, seed: int) -> Arguments:
        """Fresh arguments and cotangents."""
        generator = torch.Generator().manual_seed(seed)
        dtype, device = problem.dtype, problem.device
        inputs = problem.make(generator, dtype, device)
        if mode == "forward":
            return (*inputs, [])
        known = self._about(problem)
        if known.shapes is None:
            with torch.no_grad():
                result = list(problem.providers.values())[-1](*inputs)
            known.shapes = [t.shape for t in tensors_in(result)]
        cotangents = [torch.randn(s, generator=generator).to(device, dtype) for s in known.shapes]
        return (*inputs, cotangents)


def group_of(problem: Problem, mode: str) -> str:
    """The name under which its providers stand side by side."""
    return f"{problem.name} {mode}"


def _skip_alternative(problem: Problem, provider: str, failure: Exception) -> None:
    """What is compiled may not exist here, what is fragile may fail on these inputs."""
    if _compiles(provider) or provider in problem.fragile:
        pytest.skip(f"{provider}: {type(failure).__name__}")


def _description(problem: Problem, provider: str, mode: str, error: float) -> dict[str, Any]:
    """What the record says of a case."""
    return {
        "op": problem.op,
        "label": problem.label,
        "dtype": str(problem.dtype).removeprefix("torch."),
        "mode": mode,
        "provider": provider,
        "baseline": next(iter(problem.providers)),
        "error": error if error == error else None,
        "tolerance": problem.tolerance,
        "threads": torch.get_num_threads(),
        "device": problem.device,
        "slow": is_slow(problem, provider, mode),
        **dict(zip(("bytes", "flop"), problem.floor.get(mode, ()), strict=False)),
        **problem.extra,
    }


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


def rounds_for(call: float, setup: float, quick: bool, budget: float = 2.0) -> int:
    """How many rounds of `call` seconds, each after `setup` seconds, fit the budget of a case.

    Never fewer than three, unless a call is so long that its own spread is small: two past 1.5 s,
    one past 5 s. With --quick at most five, in half a second.
    """
    most, budget = (5, 0.5) if quick else (21, budget)
    least = 3 if call < 1.5 else 2 if call < 5 else 1
    return max(least, min(most, int(budget / max(call + setup, 1e-9))))


def _compiles(provider: str) -> bool:
    return provider.startswith("torch.compile")


def parametrise(problems: list[Problem]) -> list[Any]:
    """All (problem, provider, mode), the providers of one case next to each other.

    What --quick leaves out is marked slow.
    """
    cases = []
    for problem in on_devices(problems):
        for mode in problem.modes:
            for name in problem.providers:
                marks = [pytest.mark.slow] if is_slow(problem, name, mode) else []
                cases.append(pytest.param(problem, name, mode, marks=marks))
    return cases


def is_slow(problem: Problem, provider: str, mode: str) -> bool:
    """Left out by --quick: slow problems, our reference, what is compiled (tens of seconds) and
    what is fragile."""
    slow = problem.slow or mode in problem.slow_modes or provider in problem.fragile
    return slow or _compiles(provider) or provider == "kdops reference"


def identify(value: Any) -> str:
    """Test ids."""
    return value.name.replace(" ", "-") if isinstance(value, Problem) else str(value)
