"""From one gradient formula to everything autograd needs.

An op of kdops is a C++ op (schema and kernels in csrc/) plus a formula for its gradient, a pure
differentiable function of tensors (kdops/ops/<op>/gradient.py). From the two this module makes

* `register_autograd` entries, so that `torch.ops.kdops.<op>` itself is differentiable and opcheck
  sees the truth (eager calls take this short way), and
* one `autograd.Function` with setup_context, vmap and jvp, to which the op itself turns under
  torch.func and which forward mode calls. torch.compile traces the op and never the Function: it
  knows no jvp, and inside torch.func.grad it takes a differentiated input for a constant.

First order uses the fused kernel, second order differentiates the formula. Forward mode transposes
the backward (kdops/_forward.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kdops import _forward
from kdops._precision import full_precision
from kdops._saved import after_its_level, save, saved
from kdops._vmap import Outputs, VmapOf, as_tuple, fold_vmap, leading_vmap, loop_vmap

Formula = Callable[..., Outputs]
Cotangents = Sequence["Tensor | None"]

# Asked at every call, so that looking them up counts.
_transforms_active = torch._C._are_functorch_transforms_active
_autocast_enabled = torch._C._is_any_autocast_enabled
_below_autograd = torch._C._AutoDispatchBelowAutograd  # saves a call's way through Python: 5 us
_untracked_views = torch._C._ExcludeDispatchKeyGuard  # a view could not keep its own tangent
_VIEWS = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)
_NO_TANGENT = "compiled, it would lose the tangents of forward_ad; use torch.func.jvp"
_is_compiling = torch.compiler.is_compiling
_is_tracing = torch._C._is_tracing  # by torch.jit.trace, whose graph must not hang on the inputs
_grad_enabled = torch.is_grad_enabled


def wants_grad(*tensors: Tensor) -> bool:
    """Whether a gradient may be asked for: an op that fuses it into its forward can skip it."""
    if _is_compiling() or _is_tracing() or _transforms_active():
        return True
    return forward_ad._current_level >= 0 or _watched(tensors)


def differentiated_again() -> bool:
    """Whether a backward that runs now must be differentiable itself."""
    return torch.is_grad_enabled() or forward_ad._current_level >= 0


def map_op(
    name: str,
    *,
    formula: Formula,
    vmap: VmapOf | None = None,
    backward_vmap: VmapOf | None = None,
    saves_outputs: bool = False,
    constant_outputs: Sequence[int] = (),
) -> Callable[..., Outputs]:
    """`kdops::<name>` with the gradient op `kdops::<name>_backward`, as a differentiable function.

    The gradient op takes the cotangents of all differentiable outputs, then the op's inputs, then
    (saves_outputs) all its outputs; it returns one tensor per Tensor or Tensor? input of the op,
    in order, empty where that input is None. `formula` is the same function in plain PyTorch.
    constant_outputs are outputs without a gradient (work space kept for the backward).
    The default vmap folds the mapped dimension into the leading one of every tensor.
    """
    op = _overload(name)
    places = _tensor_places(op)
    gradient = gradient_op(f"{name}_backward", formula, backward_vmap)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        outputs = as_tuple(output)
        if constant_outputs:
            ctx.mark_non_differentiable(*(outputs[i] for i in constant_outputs))
        save(ctx, (*inputs, *outputs) if saves_outputs else inputs)
        ctx.input_count = len(inputs)

    def backward(ctx: Any, *cotangents: Tensor) -> Outputs:
        kept = [c for i, c in enumerate(cotangents) if i not in constant_outputs]
        grads = as_tuple(gradient(*kept, *saved(ctx)))
        full: list[Any] = [None] * ctx.input_count
        for place, grad in zip(places, grads, strict=True):
            full[place] = grad
        return tuple(
            g if need else None for g, need in zip(full, ctx.needs_input_grad, strict=True)
        )

    return _differentiable(name, op, setup, backward, vmap)


def loss_op(name: str, *, formula: Formula) -> Callable[..., tuple[Tensor, ...]]:
    """`kdops::<name>` returning (loss, gradients...) in one pass, as a differentiable function.

    The gradients belong to the first inputs of the op, in order. `formula(*inputs)` gives the same
    gradients in plain PyTorch; it is used when somebody differentiates the gradient. The op may
    return empty gradients when its inputs say that none are wanted. vmap calls it in turn.
    """
    op = _overload(name)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        ctx.set_materialize_grads(False)
        save(ctx, (*inputs, *output[1:]))
        ctx.input_count = len(inputs)

    def backward(ctx: Any, loss_cotangent: Tensor | None, *cotangents: Tensor | None) -> Outputs:
        values = saved(ctx)
        inputs, grads = values[: ctx.input_count], values[ctx.input_count :]
        full = pull_back(formula, inputs, cotangents)
        if loss_cotangent is not None:
            reuse = _last_use(ctx, loss_cotangent)
            for i, (grad, need) in enumerate(zip(grads, ctx.needs_input_grad, strict=False)):
                if need:
                    # detached: as an output of the forward it would still hang on the graph
                    first = grad.detach().mul_(loss_cotangent) if reuse else loss_cotangent * grad
                    full[i] = first if full[i] is None else full[i] + first
        return tuple(full)

    result: Callable[..., tuple[Tensor, ...]]
    result = _differentiable(name, op, setup, backward, loop_vmap)
    return result


def custom_op(
    name: str,
    *,
    setup: Callable[..., None],
    backward: Callable[..., Outputs],
    vmap: VmapOf | None = None,
) -> Callable[..., Outputs]:
    """`kdops::<name>` with its own setup_context and backward, as those of an autograd.Function.

    For an op whose gradient is not one op of the same inputs: it may be a formula, use other ops or
    skip cotangents that are None.
    """
    return _differentiable(name, _overload(name), setup, backward, vmap)


def python_op(
    schema: str,
    forward: Callable[..., Outputs],
    *,
    fake: Callable[..., Outputs],
    setup: Callable[..., None],
    backward: Callable[..., Outputs],
) -> Callable[..., Outputs]:
    """`custom_op` for what plain PyTorch computes, of tensors with any leading dimensions.

    `schema` names it `kdops_plain::<name>`. It is no bare autograd.Function, which cannot be traced
    inside torch.func (see the head of this file).
    """
    name = schema.partition("(")[0]
    _PLAIN.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _PLAIN.impl(name, forward, "CompositeExplicitAutograd")
    torch.library.register_fake(f"kdops_plain::{name}", fake)
    op = getattr(torch.ops.kdops_plain, name).default
    return _differentiable(name, op, setup, backward, leading_vmap, forward)


_PLAIN = torch.library.Library("kdops_plain", "DEF")


def gradient_op(name: str, formula: Formula, vmap: VmapOf | None = None) -> Callable[..., Outputs]:
    """`kdops::<name>`, a fused gradient op, whose own gradient is that of the formula."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        ctx.set_materialize_grads(False)
        save(ctx, inputs)

    def backward(ctx: Any, *cotangents: Tensor | None) -> Outputs:
        return tuple(pull_back(formula, saved(ctx), cotangents))

    return _differentiable(name, _overload(name), setup, backward, vmap)


# ---- internals -----------------------------------------------------------------------------------


def _overload(name: str) -> Any:
    return getattr(torch.ops.kdops, name).default


def _tensor_places(op: Any) -> list[int]:
    """Positions of the op's Tensor and Tensor? arguments."""
    types = [str(a.type) for a in op._schema.arguments]
    return [i for i, t in enumerate(types) if t in ("Tensor", "Optional[Tensor]")]


def pull_back(formula: Formula, inputs: Sequence[Any], cotangents: Cotangents) -> list[Any]:
    """Cotangents of `inputs` for those of formula(*inputs); None where an input is no tensor."""
    grads: list[Any] = [None] * len(inputs)
    if all(c is None for c in cotangents):
        return grads
    # what a level of torch.func saved may be asked for after its end
    inputs = [torch._C._functorch.unwrap_if_dead(v) if isinstance(v, Tensor) else v for v in inputs]
    where = [i for i, v in enumerate(inputs) if isinstance(v, Tensor) and v.is_floating_point()]

    def of_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
        full = list(inputs)
        for i, value in zip(where, tensors, strict=True):
            full[i] = value
        outputs = as_tuple(formula(*full))
        return tuple(o for o, c in zip(outputs, cotangents, strict=True) if c is not None)

    with full_precision(*inputs):
        pull = torch.func.vjp(of_tensors, *(inputs[i] for i in where))[1]
        values = pull(tuple(c for c in cotangents if c is not None))
    for i, grad in zip(where, values, strict=True):
        grads[i] = grad
    return grads


def _last_use(ctx: Any, cotangent: Tensor) -> bool:
    """Whether a backward may overwrite what it saved: nobody will come back for it.

    Scaling a gradient where it lies spares a large loss its second buffer.
    """
    eager = getattr(getattr(ctx, "_forward_cls", None), "eager", False)
    if not eager or _grad_enabled() or _transforms_active():
        return False
    if torch._C._functorch.is_legacy_batchedtensor(cotangent):  # is_grads_batched=True
        return False
    return not torch._C._autograd._get_current_graph_task_keep_graph()


def _differentiable(
    name: str,
    op: Any,
    setup: Callable[..., None],
    backward: Callable[..., Outputs],
    vmap: VmapOf | None,
    kernel: Callable[..., Outputs] | None = None,
) -> Callable[..., Outputs]:
    """Puts the two rules on the op and around it; the result picks the way that works.

    `kernel` is what eager code calls: an op in Python saves 5 us where torch need not find it.
    """
    full_name, kernel = op._schema.name, kernel or op._op
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(full_name, device, torch.float32)

    def forward(*inputs: Any) -> Outputs:
        with _below_autograd(), _untracked_views(_VIEWS):
            return op(*inputs)

    def forward_and_setup(ctx: Any, *inputs: Any) -> Outputs:
        with _below_autograd():
            outputs = kernel(*inputs)
        setup(ctx, inputs, outputs)
        return outputs

    separate = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(_forward.setup_for_both(setup)),
        "jvp": staticmethod(_forward.transposed(setup, backward)),
        "backward": staticmethod(after_its_level(backward)),
    }
    function: Any = type(f"Kdops_{name}", (torch.autograd.Function,), separate)
    registry = _forward.Registry(full_name, function.apply)
    torch.library.register_autograd(full_name, backward, setup_context=setup, lib=registry)
    # under torch.func the op is this Function, also where torch.compile has traced the op
    torch.library.impl(full_name, "FuncTorchDynamicLayerFrontMode", function.apply)
    # what eager code runs: no torch.func, but 10 us less than the other two ways
    rules = {"forward": staticmethod(forward_and_setup), "backward": staticmethod(backward)}
    eager: Any = type(f"KdopsEager_{name}", (torch.autograd.Function,), rules | {"eager": True})
    record = super(torch.autograd.Function, eager).apply  # without what torch.func needs: 5 us

    def call(*inputs: Any) -> Outputs:
        if _is_compiling():
            if forward_ad._current_level >= 0 and not _transforms_active():
                raise RuntimeError(f"{name}: {_NO_TANGENT}")
            return op(*inputs)
        if _transforms_active() or forward_ad._current_level >= 0:
            return function.apply(*inputs)
        if _autocast_enabled() or _is_tracing():
            return op(*inputs)
        if _watched(inputs):
            return record(*inputs)
        with _below_autograd():
            return kernel(*inputs)

    function.vmap = staticmethod(vmap(call) if vmap else fold_vmap(function.apply))
    return call


def _watched(inputs: Sequence[Any]) -> bool:
    """Whether eager autograd records a call with these inputs."""
    if _grad_enabled():
        for value in inputs:
            if isinstance(value, Tensor) and value.requires_grad:
                return True
    return False
