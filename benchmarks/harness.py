"""How a benchmark case is run: fresh inputs, accuracy first, then time, then peak memory.

A `Problem` is one op at one shape with several providers (the published form, the best plain
PyTorch form, kdops). `measure` runs one provider of it under pytest-benchmark. The contract is
written in README.md beside this file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import kdops
from benchmarks import gpu
from benchmarks.floors import Floor
from benchmarks.memory import peak_mb
from kdops.testing import relative_error, seeded_cotangents, tensors_in

Arguments = tuple[Any, ...]
# backward: of a graph that was built outside the time; both: as a training step does
MODES = ("forward", "backward", "both")


@dataclass(frozen=True)
class Problem:
    """One comparison. `make(generator, dtype, device)` returns fresh arguments each time.

    providers: name -> function of the arguments. Names that say what users run today start with
    "published" or "torch"; ours is "kdops", last, and "kdops reference" its plain PyTorch backend.
    The first provider is the baseline that speed-ups are counted from. reference: float64 truth.
    invariant: see kdops.testing.OpSpec.
    tolerance: largest relative error of value and gradient at this dtype.
    slow: left out by --quick; slow_modes: these modes of a problem that is not.
    extra: more fields for the record (a sweep's size, ...).
    budget: seconds that the rounds of one provider may take, fresh inputs included.
    device: every problem is run on "cuda" too where there is one, those of device="cuda" only
    there. on_cuda: providers that exist only there. floor: {mode: (bytes, FLOP)}, see floors.py.
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
    floor: Floor = field(default_factory=dict)
    slow: bool = False
    slow_modes: tuple[str, ...] = ("backward",)
    budget: float = 3.0
    check: bool = True
    device: str = "cpu"
    on_cuda: dict[str, Callable[..., Any]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        place = "" if self.device == "cpu" else f" {self.device}"
        return f"{self.op} {self.label} {dtype}{place}"


def step(function: Callable[..., Any], mode: str, arguments: Arguments) -> Any:
    """What is timed. The cotangent of a non-scalar result is made outside, see `prepare`."""
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


_shapes: dict[str, list[torch.Size]] = {}
_errors: dict[tuple[str, str], float] = {}
_truth: dict[str, list[Tensor]] = {}  # of the current problem only


def prepare(problem: Problem, mode: str, seed: int) -> Arguments:
    """Fresh arguments and cotangents (shapes as the last provider, ours, returns them)."""
    generator = torch.Generator().manual_seed(seed)
    dtype, device = problem.dtype, problem.device
    inputs = problem.make(generator, dtype, device)
    if mode == "forward":
        return (*inputs, [])
    if problem.name not in _shapes:
        with torch.no_grad():
            result = list(problem.providers.values())[-1](*inputs)
        _shapes[problem.name] = [t.shape for t in tensors_in(result)]
    shapes = _shapes[problem.name]
    cotangents = [torch.randn(s, generator=generator).to(device, dtype) for s in shapes]
    return (*inputs, cotangents)


def accuracy(problem: Problem, provider: str) -> float:
    """Largest relative error of value and gradients against the float64 reference; NaN unchecked.

    The error of a provider is computed once, the reference once per problem.
    """
    if not problem.check:
        return float("nan")
    key = (problem.name, provider)
    if key not in _errors:
        inputs = problem.make(torch.Generator().manual_seed(99), problem.dtype, problem.device)
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


def rounds_for(call: float, setup: float, quick: bool, budget: float = 3.0) -> int:
    """How many rounds of `call` seconds, each after `setup` seconds, fit the budget of a case.

    Never fewer than three, unless a call is so long that its own spread is small: two past 1.5 s,
    one past 5 s. With --quick at most five, in half a second.
    """
    most, budget = (5, 0.5) if quick else (21, budget)
    least = 3 if call < 1.5 else 2 if call < 5 else 1
    return max(least, min(most, int(budget / max(call + setup, 1e-9))))


def measure(benchmark: Any, problem: Problem, provider: str, mode: str, quick: bool) -> None:
    """One provider of one problem: asserts its accuracy, then times it with fresh inputs."""
    benchmark.group = f"{problem.name} {mode}"
    function = problem.providers[provider]
    try:
        error = accuracy(problem, provider)
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
        device=problem.device,
        slow=is_slow(problem, provider, mode),
        **dict(zip(("bytes", "flop"), problem.floor.get(mode, ()), strict=False)),
        **problem.extra,
    )
    if provider.startswith("kdops") and problem.check:
        assert error <= problem.tolerance, f"error {error:.3g} above {problem.tolerance:.3g}"
    seeds = iter(range(1, 1_000_000))

    def fresh() -> Arguments:
        arguments = prepare(problem, mode, next(seeds))
        return function, mode, graph(function, arguments) if mode == "backward" else arguments

    compiles = provider.startswith("torch.compile")
    making, once, peak = warm_up(step, fresh, problem.device, compiles)
    benchmark.extra_info["peak_mb"] = peak
    if problem.device == "cuda":
        timing = gpu.measure_once if mode == "backward" else gpu.measure
        timing(benchmark, step, fresh, 3 if quick else 7)
        return
    rounds = rounds_for(once, making, quick, problem.budget)
    benchmark.pedantic(step, setup=lambda: (fresh(), {}), rounds=rounds)


def warm_up(
    function: Callable[..., Any],
    setup: Callable[[], Arguments],
    device: str = "cpu",
    compiling: bool = False,
) -> tuple[float, float, float | None]:
    """(seconds to make the arguments, seconds of a call, its peak MB).

    The call that shows the peak is a slow one, so that a second gives the time unless it is long.
    """
    if compiling:
        function(*setup())
    peak = None
    for measuring_peak in (True, False):
        start = time.perf_counter()
        call = partial(function, *setup())
        ready = time.perf_counter()
        if measuring_peak:
            peak = peak_mb(call, device)
        else:
            call()
        making, once = ready - start, time.perf_counter() - ready
        if once > 1.5:
            break
    return making, once, None if peak is None else round(peak, 2)


def reference_backend(
    function: Callable[..., Any], wanted: bool = True
) -> dict[str, Callable[..., Any]]:
    """A provider more, where wanted: the same op of kdops by its plain PyTorch backend."""

    def call(*arguments: Any) -> Any:
        with kdops.backend("reference"):
            return function(*arguments)

    return {"kdops reference": call} if wanted else {}


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
    """Left out by --quick: slow problems, our reference, and what is compiled (tens of seconds)."""
    slow = problem.slow or mode in problem.slow_modes
    return slow or provider.startswith("torch.compile") or provider == "kdops reference"


def on_devices(problems: list[Problem]) -> list[Problem]:
    """Those for the CPU, and where there is a GPU all of them on "cuda"."""
    here = [p for p in problems if p.device == "cpu"]
    if torch.cuda.is_available():
        here += [replace(p, device="cuda", on_cuda={}, providers=_merged(p)) for p in problems]
    return here


def _merged(problem: Problem) -> dict[str, Callable[..., Any]]:
    """All providers on cuda; ours stays the last, the baseline the first."""
    *others, ours = problem.providers.items()
    return {**dict(others), **problem.on_cuda, ours[0]: ours[1]}


def identify(value: Any) -> str:
    """Test ids."""
    return value.name.replace(" ", "-") if isinstance(value, Problem) else str(value)
