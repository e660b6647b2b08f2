"""One declaration of an op: what torch, the backend table and the op's room must know of it.

The schema and the C++ kernels are in csrc/<room>. kdops/ops/<room>/registration.py declares the ops
of a room, and its public functions ask `serves` before they call `run` or `plain`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdops import _backends, _library
from kdops._precision import full_precision

SINGLE_AND_DOUBLE = (torch.float32, torch.float64)

# From an op's name to the op as a differentiable function: refuse_derivatives of kdops._forward, or
# functools.partial of map_op, loss_op, custom_op or gradient_op of kdops._autograd.
Derivative = Callable[[str], Callable[..., Any]]


def _unlimited(*problem: Any) -> None:
    """The kernels take every size."""


def _one_route(*problem: Any) -> None:
    """A backend has one algorithm."""


@dataclass(eq=False)
class Kernel:
    """`kdops::<name>`, which one backend or another computes: `run` is differentiable.

    A gradient that other ops call is no more than this. Without a binary there is no `run`.
    """

    name: str
    fake: Callable[..., Any]  # the outputs' shapes and strides
    derivative: Derivative
    triton: str = ""  # the module with the launcher of this name, where a GPU's kernel is Triton's
    run: Callable[..., Any] = field(init=False)

    def __post_init__(self) -> None:
        if not _library.missing:
            self._define(self.name, self.fake)
            self.run = self.derivative(self.name)

    def _define(self, name: str, fake: Callable[..., Any]) -> None:
        if self.triton:
            launcher = _backends.triton_launcher(self.triton, name)
            torch.library.impl(f"kdops::{name}", "CUDA", launcher)
        torch.library.register_fake(f"kdops::{name}", fake)


@dataclass(eq=False, kw_only=True)
class Op(Kernel):
    """A kernel with its backends: `run` where one has it, `plain` elsewhere.

    typical_sizes and everything that is asked with sizes take those that `serves` is called with.
    """

    reference: Callable[..., Any]
    backward_fake: Callable[..., Any] | None = None  # of `kdops::<name>_backward`, for map_op
    dtypes: Sequence[torch.dtype] = SINGLE_AND_DOUBLE
    limit: _backends.Predicate = _unlimited  # what the C++ kernels refuse, as a sentence
    route: _backends.Route = _one_route
    typical_sizes: tuple[int, ...]
    shown_as: str = ""  # in `explain`, where it is not the op's name

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backward_fake and not _library.missing:
            self._define(f"{self.name}_backward", self.backward_fake)
        self.shown_as = self.shown_as or self.name
        _backends.register(
            self.shown_as,
            native=self._native_obstacle,
            triton=self._triton_obstacle if self.triton else None,
            typical_sizes=self.typical_sizes,
            route=self.route,
        )

    def serves(self, x: Tensor, *sizes: int) -> bool:
        """Whether a kernel computes this problem: the one question of a room to the backends."""
        return _backends.choose_for(self.shown_as, x, *sizes) != "reference"

    def plain(self, *values: Any, **options: Any) -> Any:
        """The reference, which autocast leaves alone."""
        with full_precision(*values):
            return self.reference(*values, **options)

    def _native_obstacle(self, device: str, dtype: torch.dtype, *sizes: int) -> str | None:
        if self.triton and device != "cpu":
            return "the C++ kernel runs on cpu; the GPU kernel is Triton's"
        if reason := self.limit(device, dtype, *sizes):
            return reason
        return _backends.native_obstacle(device, dtype, self.dtypes)

    def _triton_obstacle(self, device: str, dtype: torch.dtype, *sizes: int) -> str | None:
        return _backends.triton_obstacle(device, dtype, self.dtypes)
