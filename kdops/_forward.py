"""Forward-mode derivatives of every op, out of the backward that it has anyway.

The backward is linear in its cotangents, v -> Jᵀ v. Its own backward is therefore t -> J t, which
is the tangent: one backward and the backward of the formula. So an op needs no second rule, and
its tangents agree with its gradients at degenerate points too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kdops._precision import full_precision
from kdops._saved import TENSOR
from kdops._vmap import Outputs, as_tuple

Setup = Callable[..., None]
Backward = Callable[..., Outputs]


class _Replay:
    """The ctx of a backward that runs outside of any autograd graph."""

    def __init__(self, needs_input_grad: Sequence[bool]) -> None:
        self.needs_input_grad = tuple(needs_input_grad)
        self.saved_tensors: tuple[Tensor, ...] = ()
        self.constants: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        self.constants = outputs

    def set_materialize_grads(self, value: bool) -> None:
        """Every cotangent that matters is given."""


def setup_for_both(setup: Setup) -> Setup:
    """`setup`, which also keeps what `transposed` wants."""

    def both(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        setup(ctx, inputs, output)
        values = (*inputs, *as_tuple(output))
        ctx.kept = [TENSOR if isinstance(v, Tensor) else v for v in values]
        ctx.single = isinstance(output, Tensor)
        ctx.places = len(inputs)
        ctx.save_for_forward(*(v for v in values if isinstance(v, Tensor)))

    return both


def transposed(setup: Setup, backward: Backward) -> Callable[..., Any]:
    """The jvp of an autograd.Function with this setup_context and backward."""

    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        # torch switches forward mode off in here, but an outer level may still want it
        with forward_ad._set_fwd_grad_enabled(True):
            tensors = iter(ctx.saved_tensors)
            values = [_primal(next(tensors)) if v is TENSOR else v for v in ctx.kept]
            inputs, outputs = values[: ctx.places], values[ctx.places :]
            with full_precision(*inputs):
                pushed = _push(setup, backward, inputs, outputs, ctx.single, tangents)
        return pushed[0] if ctx.single else tuple(pushed)

    return jvp


def _push(
    setup: Setup,
    backward: Backward,
    inputs: list[Any],
    outputs: list[Any],
    single: bool,
    tangents: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The tangents of the outputs; None for those that are constants or integers."""
    moving = [i for i, t in enumerate(tangents) if t is not None and t.is_floating_point()]
    replay = _Replay([i in moving for i in range(len(inputs))])
    setup(replay, tuple(inputs), outputs[0] if single else tuple(outputs))
    wanted = [
        i
        for i, value in enumerate(outputs)
        if value.is_floating_point() and not any(value is c for c in replay.constants)
    ]

    def pull(*cotangents: Tensor) -> tuple[Tensor, ...]:
        full: list[Tensor | None] = [None] * len(outputs)
        for i, cotangent in zip(wanted, cotangents, strict=True):
            full[i] = cotangent
        grads = as_tuple(backward(replay, *full))
        return tuple(torch.zeros_like(inputs[i]) if grads[i] is None else grads[i] for i in moving)

    push = torch.func.vjp(pull, *(torch.zeros_like(outputs[i]) for i in wanted))[1]
    pushed: list[Tensor | None] = [None] * len(outputs)
    for i, tangent in zip(wanted, push(tuple(tangents[i] for i in moving)), strict=True):
        pushed[i] = tangent
    return pushed


class Registry(torch.library.Library):
    """Where register_autograd puts its kernel of an op, which knows no tangents: while forward mode
    is on, a direct call of torch.ops.kdops.<op> is sent to the Function of the op instead."""

    _alive: ClassVar[list[Any]] = []

    def __init__(self, full_name: str, function: Callable[..., Outputs]) -> None:
        super().__init__(full_name.partition("::")[0], "FRAGMENT")  # type: ignore[no-untyped-call]
        self._function = function
        self._alive.append(self)

    def impl(self, op_name: Any, fn: Any, dispatch_key: str = "", **options: Any) -> None:
        """Library.impl, of a kernel that is called with its dispatch keys first."""

        def kernel(keys: Any, *inputs: Any) -> Outputs:
            forward = forward_ad._current_level >= 0 and not torch.compiler.is_compiling()
            outputs: Outputs = self._function(*inputs) if forward else fn(keys, *inputs)
            return outputs

        super().impl(op_name, kernel, dispatch_key, **options)  # type: ignore[no-untyped-call]


def refuse_derivatives(name: str) -> Callable[..., Outputs]:
    """`kdops::<name>`, which only a backward calls, has no derivative of its own and says so."""
    op = getattr(torch.ops.kdops, name).default

    def backward(*_: Any) -> Outputs:
        raise RuntimeError(f"{name}: this op of a backward has no derivative of its own")

    def forward(*inputs: Any) -> Outputs:
        tensors = [v for v in inputs if isinstance(v, Tensor)]
        if any(forward_ad.unpack_dual(t).tangent is not None for t in tensors):
            return backward()
        with torch._C._AutoDispatchBelowAutograd():
            outputs: Outputs = op(*inputs)
        return outputs

    registry = Registry(op._schema.name, forward)
    torch.library.register_autograd(op._schema.name, backward, lib=registry)
    result: Callable[..., Outputs] = op
    return result


def _primal(tensor: Tensor) -> Tensor:
    """The tensor without its tangent of this level; a copy, as views stay bound to the tangent."""
    if not tensor.is_floating_point():
        return tensor
    primal: Tensor = forward_ad.unpack_dual(tensor, level=0).primal
    return primal.clone()
