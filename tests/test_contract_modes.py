"""The contract, continued: the ways in which torch runs an op beyond a plain call.

Forward mode, torch.func inside torch.compile, dynamic batches, meta tensors, autocast on every
backend. One parametrised test per promise, for every spec of specs/ and every backend that serves.
"""

import pytest
import torch
from support.contract_cases import (
    backends_for,
    contract,
    energy,
    on_reference,
    outcome,
    runs_on,
)
from torch.autograd import forward_ad

import kdops
from kdops.testing import Maker, assert_close, differentiable, gradients, tensors_in

STEP = 1e-5  # of a central difference in float64, which leaves about 1e-10


def serving(spec, device, arguments):
    """Every backend that runs all of spec.function(*arguments), forced one after the other."""
    for name in backends_for(device):
        if runs_on(name, spec.function, arguments):
            with kdops.backend(name):
                yield name


def directions(arguments):
    """A seeded tangent for every argument that may need a gradient, None for the others."""
    generator = torch.Generator().manual_seed(2)
    return tuple(
        torch.randn(a.shape, generator=generator, dtype=torch.float64).to(a)
        if torch.is_tensor(a) and a.requires_grad
        else None
        for a in arguments
    )


def moved(arguments, tangents, step):
    pairs = zip(arguments, tangents, strict=True)
    return tuple(a.detach() + step * t if t is not None else a for a, t in pairs)


def slope(function, arguments, tangents):
    """The derivative along `tangents`, by a central difference."""
    after, before = (function(*moved(arguments, tangents, s)) for s in (STEP, -STEP))
    return [(a - b) / (2 * STEP) for a, b in zip(after, before, strict=True)]


def assert_near(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        assert a is not None, "the tangent is missing"
        assert torch.allclose(a, e, rtol=1e-6, atol=1e-6 * max(e.abs().max().item(), 1e-3))


def along(function, arguments, tangents):
    """The function of the moving arguments alone, with these and their tangents, for torch.func."""
    where = [i for i, t in enumerate(tangents) if t is not None]

    def of_moving(*moving):
        full = list(arguments)
        for i, value in zip(where, moving, strict=True):
            full[i] = value
        return function(*full)

    return of_moving, tuple(arguments[i].detach() for i in where), tuple(tangents[i] for i in where)


def dual_tangents(function, arguments, tangents):
    with forward_ad.dual_level():
        pairs = zip(arguments, tangents, strict=True)
        dual = [forward_ad.make_dual(a.detach(), t) if t is not None else a for a, t in pairs]
        return [forward_ad.unpack_dual(t).tangent for t in function(*dual)]


@contract
@pytest.mark.parametrize("watched", [True, False], ids=["grad", "no_grad"])
def test_forward_mode(spec, device, watched):
    """The tangent of forward_ad and of torch.func.jvp is the derivative along it."""
    if reason := spec.skips.get("gradcheck"):
        pytest.skip(reason)
    for case in spec.small_cases:
        arguments = case.build(Maker(device=device, requires_grad=True))
        tangents, function = directions(arguments), outcome(spec)
        for _ in serving(spec, device, arguments):
            expected = slope(function, arguments, tangents)
            with torch.set_grad_enabled(watched):
                assert_near(dual_tangents(function, arguments, tangents), expected)
                assert_near(torch.func.jvp(*along(function, arguments, tangents))[1], expected)


@contract
def test_forward_mode_of_direct_calls(spec, device):
    """torch.ops.kdops.<op> itself, past the public function: the tangents that belong to its
    gradients, or an error that names the op. Under plain forward_ad they were lost."""
    for name, build in spec.op_calls:
        op = getattr(torch.ops.kdops, name)
        arguments = build(Maker(device=device, requires_grad=True))
        tangents = directions(arguments)

        def function(*arguments, op=op):
            return tuple(tensors_in(op(*arguments)))

        if name == "attention_loss_backward":
            watched = [a.requires_grad_() if torch.is_tensor(a) else a for a in arguments]
            with pytest.raises(RuntimeError, match=f"{name}: .* no derivative"):
                dual_tangents(function, watched, directions(watched))
            with pytest.raises(RuntimeError, match=f"{name}: .* no derivative"):
                op(*watched).sum().backward()
            continue
        pushed = dual_tangents(function, arguments, tangents)
        assert pushed[0] is not None, name
        # <w, J t> is <J' w, t>: what moves the outputs is what pulls back from them
        outputs = function(*arguments)
        moving = [i for i, t in enumerate(pushed) if t is not None and t.numel()]
        weights = directions([outputs[i] for i in moving])
        leaves = differentiable(arguments)
        pulled = torch.autograd.grad(
            [outputs[i] for i in moving], leaves, weights, allow_unused=True
        )
        ways = [t for t in tangents if t is not None]
        there = sum((w * pushed[i]).sum() for w, i in zip(weights, moving, strict=True))
        pairs = zip(pulled, ways, strict=True)
        back = sum((g * t).sum() for g, t in pairs if g is not None)
        assert_near([there], [back])


@contract
def test_forward_over_reverse(spec, device):
    """The tangent of a gradient is the derivative of the gradient, and jvp of jvp is right."""
    if reason := spec.skips.get("gradcheck"):
        pytest.skip(reason)
    arguments = spec.small_cases[0].build(Maker(device=device, requires_grad=True))
    tangents = directions(arguments)
    for _ in serving(spec, device, arguments):
        function, moving, ways = along(energy(spec), arguments, tangents)
        places = tuple(range(len(moving)))
        slopes = torch.func.grad(function, argnums=places)
        expected = slope(slopes, moving, ways)
        assert_near(torch.func.jvp(slopes, moving, ways)[1], expected)

        def speed(*moving, function=function, ways=ways):
            return torch.func.jvp(function, moving, ways)[1]

        along_ways = sum((e * w).sum() for e, w in zip(expected, ways, strict=True))
        assert_near([torch.func.jvp(speed, moving, ways)[1]], [along_ways])
        assert_near(torch.func.grad(speed, argnums=places)(*moving), expected)


@contract
def test_forward_mode_of_a_backward(spec, device):
    """Backward through a graph of dual tensors: the gradient carries its tangent."""
    if reason := spec.skips.get("gradcheck"):
        pytest.skip(reason)
    arguments = spec.small_cases[0].build(Maker(device=device, requires_grad=True))
    tangents = directions(arguments)
    for _ in serving(spec, device, arguments):
        function, moving, ways = along(energy(spec), arguments, tangents)
        expected = slope(torch.func.grad(function, tuple(range(len(moving)))), moving, ways)
        with forward_ad.dual_level():
            leaves = [m.clone().requires_grad_() for m in moving]
            dual = [forward_ad.make_dual(x, t) for x, t in zip(leaves, ways, strict=True)]
            grads = torch.autograd.grad(function(*dual), leaves)
            actual = [forward_ad.unpack_dual(g).tangent for g in grads]
        assert_near(actual, expected)


@pytest.mark.slow
@contract
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compiled_func(spec, device, compiler):
    """torch.func inside torch.compile, where other arguments are derived from the first."""
    arguments = spec.small_cases[0].build(Maker(device=device))
    first, others = arguments[0], arguments[1:]

    def single(x):
        shift = x.sum() * 0.125
        return energy(spec)(x, *(a + shift if torch.is_tensor(a) else a for a in others))

    def speed(x):
        return torch.func.jvp(single, (x,), (x.cos(),))[1]

    for _ in serving(spec, device, arguments):
        for transform in (torch.func.grad(single), speed):
            torch._dynamo.reset()
            compiled = torch.compile(transform, backend=compiler, fullgraph=True)
            assert_close(compiled(first), transform(first), torch.float64)


@contract
def test_autocast_of_every_backend(spec, device):
    """Under autocast every backend computes in float32, forward, backward and in forward mode."""
    arguments = spec.cases[0].build(Maker(torch.float32, device, requires_grad=True))
    reference, exact = on_reference(spec, arguments)
    expected = spec.invariant(reference(*exact))

    def under_autocast(*arguments):
        with torch.autocast(device, torch.bfloat16):
            result = spec.function(*arguments)
        return tuple(tensors_in(spec.invariant(result)))

    for _ in serving(spec, device, arguments):
        assert_close(under_autocast(*arguments), expected, torch.float32)
        results = [
            (gradients(f, arguments), dual_tangents(f, arguments, directions(arguments)))
            for f in (under_autocast, outcome(spec))
        ]
        assert_close(*results, torch.float32, factor=4)


@contract
def test_meta(spec, device):
    """Meta tensors give shapes and dtypes, forward and backward, on every backend."""
    for case in spec.cases[:2]:
        arguments = case.build(Maker(torch.float32, device, requires_grad=True))
        onto = tuple(
            a.detach().to("meta").requires_grad_(a.requires_grad) if torch.is_tensor(a) else a
            for a in arguments
        )
        for name in (None, "reference"):
            with kdops.backend(name or "reference"):
                expected = tensors_in(spec.function(*arguments))
                shapes = tensors_in(spec.function(*onto)) if name else None
            shapes = shapes or tensors_in(spec.function(*onto))
            assert [(s.shape, s.dtype) for s in shapes] == [(e.shape, e.dtype) for e in expected]
            assert all(s.is_meta for s in shapes)
            total = sum(s.sum() for s in shapes if s.requires_grad)
            grads = torch.autograd.grad(total, differentiable(onto))
            assert [g.shape for g in grads] == [a.shape for a in differentiable(onto)]


@contract
def test_dynamic_batch(spec, device):
    """One graph serves twelve sizes of the leading dimension."""
    arguments = spec.cases[0].build(Maker(device=device))
    if not all(map(torch.is_tensor, arguments)):
        pytest.skip("the case holds arguments that are no tensors")
    graphs = []

    def count(module, inputs):
        graphs.append(module)
        return module

    torch._dynamo.reset()
    compiled = torch.compile(spec.function, backend=count, dynamic=True, fullgraph=True)
    # else torch takes sizes that are equal in the first call for equal in all
    with torch.fx.experimental._config.patch(use_duck_shape=False):
        for times in range(1, 13):
            repeated = tuple(a.repeat(times, *[1] * (a.dim() - 1)) for a in arguments)
            expected = spec.invariant(spec.function(*repeated))
            assert_close(spec.invariant(compiled(*repeated)), expected, torch.float64)
    assert len(graphs) == 1
