"""What kdops tests its ops with; public, so that your own op or backend can be held to the same.

An `OpSpec` says what a public function is (reference, inputs, errors); tests/test_contract.py runs
every spec through the contract. `tolerance` is the one table of tolerances: a test may only tighten
it. `Maker` makes inputs: fresh, seeded, strided in several ways, degenerate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Arguments = tuple[Any, ...]

# Relative to the largest entry of the expected value; for float32 about 100 eps, for the half
# types a few eps of storage (accumulation is float32).
_TOLERANCES = {
    torch.float64: 1e-11,
    torch.float32: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}


def tolerance(dtype: torch.dtype) -> float:
    """Largest accepted error, relative to the largest entry of the expected value."""
    return _TOLERANCES[dtype]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """max |actual - expected| / max |expected|, in float64; infinite when one of both is NaN."""
    if actual.shape != expected.shape:
        raise AssertionError(f"shape {list(actual.shape)}, expected {list(expected.shape)}")
    if expected.numel() == 0:
        return 0.0
    a, e = actual.detach().double().cpu(), expected.detach().double().cpu()
    error = (a - e).abs().max() / e.abs().max().clamp_min(1e-300)
    return float("inf") if error.isnan() else error.item()


def assert_close(actual: Any, expected: Any, dtype: torch.dtype, factor: float = 1.0) -> None:
    """Every tensor of `actual` within factor * tolerance(dtype) of the one in `expected`."""
    for a, e in zip(tensors_in(actual), tensors_in(expected), strict=True):
        error = relative_error(a, e)
        limit = factor * tolerance(dtype)
        assert error <= limit, f"relative error {error:.3g} above {limit:.3g} ({dtype})"


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of a result, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for item in value for t in tensors_in(item)]
    return []


LAYOUTS = ("contiguous", "transposed", "sliced", "expanded", "channels_last")


@dataclass
class Maker:
    """Makes input tensors. The same seed gives the same values for every dtype, device, layout."""

    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    requires_grad: bool = False
    layout: str = "contiguous"
    batch: int | None = None  # None, or a leading size for every tensor (vmap)
    seed: int = 0

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def normal(self, *shape: int, constant: bool = False) -> Tensor:
        """Standard normal entries. constant=True: never requires a gradient (a teacher)."""
        full = shape if self.batch is None else (self.batch, *shape)
        values = torch.randn(full, generator=self.generator, dtype=torch.float64)
        return self.of(values, constant=constant)

    def uniform(self, *shape: int, constant: bool = False) -> Tensor:
        """Uniform entries in [0, 1)."""
        full = shape if self.batch is None else (self.batch, *shape)
        values = torch.rand(full, generator=self.generator, dtype=torch.float64)
        return self.of(values, constant=constant)

    def of(self, values: Tensor, constant: bool = False) -> Tensor:
        """`values` in this maker's dtype, device and memory layout."""
        # rounded through float32 and the half type, so that all dtypes see almost the same input
        tensor = _lay_out(values.to(self.dtype).to(self.device), self.layout)
        return tensor.requires_grad_(self.requires_grad and not constant)


def _lay_out(x: Tensor, layout: str) -> Tensor:
    """The values of x in another memory layout."""
    if layout == "transposed" and x.dim() >= 2:
        return x.mT.contiguous().mT
    if layout == "sliced" and x.dim() >= 1:
        wide = torch.full((*x.shape[:-1], 2 * x.shape[-1] + 1), float("nan")).to(x)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    if layout == "expanded" and x.dim() >= 1 and x.shape[0] > 0:
        return x[:1].expand(x.shape)
    if layout == "channels_last" and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()


@dataclass(frozen=True)
class Case:
    """One problem: `build(make)` returns the positional arguments of the function."""

    label: str
    build: Callable[[Maker], Arguments]


@dataclass(frozen=True)
class ErrorCase:
    """Arguments that must be refused: the exception and a part of its message."""

    build: Callable[[Maker], Arguments]
    exception: type[Exception]
    message: str


@dataclass(frozen=True)
class OpSpec:
    """A public function of kdops and all the contract must know to test it.

    function: called with the arguments of a case (options bound in with functools.partial).
    reference: the same mathematics, independent of the kernels, for float64 inputs.
    cases: realistic problems, odd sizes among them. small_cases: a few entries each, for the
        numerical Jacobians of gradcheck; generic (no ties, no zero norms).
    op_calls: (name of a torch.ops.kdops op, build) for opcheck: the op and its gradient op.
    invariant: maps the result to what is comparable (an SVD has a gauge); identity by default.
    empty_cases: no rows, no batch, no positions: a defined, finite result.
    hard_cases: rows in tight clusters, one far away, denormal: value and gradient exact.
    skips: contract check -> reason why it does not apply.
    devices: device types on which there is more than the reference for these cases.
    factor: multiplies the tolerance table in the half types only if > 1 is justified in a comment.
    """

    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    cases: tuple[Case, ...]
    small_cases: tuple[Case, ...]
    op_calls: tuple[tuple[str, Callable[[Maker], Arguments]], ...] = ()
    empty_cases: tuple[Case, ...] = ()
    hard_cases: tuple[Case, ...] = ()
    errors: tuple[ErrorCase, ...] = ()
    invariant: Callable[[Any], Any] = lambda result: result
    layouts: tuple[str, ...] = LAYOUTS
    skips: dict[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu", "cuda")


def differentiable(arguments: Arguments) -> tuple[Tensor, ...]:
    """The arguments that require a gradient."""
    return tuple(a for a in arguments if isinstance(a, Tensor) and a.requires_grad)


def seeded_cotangents(outputs: Any, seed: int = 1) -> list[Tensor]:
    """A fixed random cotangent for every floating output that has a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o)
        for o in tensors_in(outputs)
        if o.requires_grad
    ]


def gradients(function: Callable[..., Any], arguments: Arguments) -> list[Tensor]:
    """Gradients of <function(arguments), fixed random cotangents> for all that require one."""
    outputs = [o for o in tensors_in(function(*arguments)) if o.requires_grad]
    return list(torch.autograd.grad(outputs, differentiable(arguments), seeded_cotangents(outputs)))


@contextmanager
def poisoned_empty() -> Iterator[None]:
    """Inside, torch.empty (from C++ too) gives NaN: reading what no kernel wrote is seen."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = before[2]  # type: ignore[attr-defined]
