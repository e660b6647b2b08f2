"""What is compared: one op at one shape in several forms (harness.py runs them)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

import kdops
from benchmarks.cases.floors import Floor

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
    fragile: providers that fail on some inputs: such a case is skipped and says why.
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
    budget: float = 2.0
    fragile: tuple[str, ...] = ()
    check: bool = True
    device: str = "cpu"
    on_cuda: dict[str, Callable[..., Any]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        place = "" if self.device == "cpu" else f" {self.device}"
        return f"{self.op} {self.label} {dtype}{place}"


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
