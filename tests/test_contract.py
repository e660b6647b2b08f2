"""The contract: what every op of kdops must do. One parametrised test per promise.

A new op gets all of it by an OpSpec in specs/<op>.py. `--device cuda` runs the same on a GPU.
"""

import pytest
import torch
from specs import SPECS
from support.contract_cases import (
    backends_for,
    contract,
    energy,
    like,
    on_reference,
    runs_on,
    tensors_in_tuple,
    through,
)

import kdops
from kdops import _backends, _inputs
from kdops.testing import (
    Maker,
    assert_close,
    differentiable,
    gradients,
    tensors_in,
)


@contract
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_value(spec, device, dtype):
    for case in spec.cases:
        arguments = case.build(Maker(dtype, device))
        reference, exact = on_reference(spec, arguments)
        expected = spec.invariant(reference(*exact))
        served = 0
        for name in backends_for(device):
            if runs_on(name, spec.function, arguments):
                with kdops.backend(name):
                    result = spec.function(*arguments)
                assert all(t.dtype == dtype for t in tensors_in(result)), case.label
                assert_close(spec.invariant(result), expected, dtype)
                served += 1
        assert served >= 2, f"{case.label}: only the reference ran"


@contract
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_gradient(spec, device, dtype):
    for case in spec.cases:
        arguments = case.build(Maker(dtype, device, requires_grad=True))
        reference, exact = on_reference(spec, arguments)
        expected = gradients(through(spec.invariant, reference), exact)
        for name in backends_for(device):
            if runs_on(name, spec.function, arguments):
                with kdops.backend(name):
                    actual = gradients(through(spec.invariant, spec.function), arguments)
                assert_close(actual, expected, dtype, factor=4)
                # else it would keep the graph, as a sum of gradients would that of every step
                assert not any(g.requires_grad for g in actual)


@contract
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_hard_cases(spec, device, dtype):
    """Rows that a Gram expansion or an underflow would ruin: value and gradient as elsewhere."""
    for case in spec.hard_cases:
        arguments = case.build(Maker(dtype, device, requires_grad=True))
        reference, exact = on_reference(spec, arguments)
        expected = spec.invariant(reference(*exact))
        expected_grads = gradients(through(spec.invariant, reference), exact)
        for name in backends_for(device):
            if runs_on(name, spec.function, arguments):
                with kdops.backend(name):
                    result = spec.invariant(spec.function(*arguments))
                    actual = gradients(through(spec.invariant, spec.function), arguments)
                assert_close(result, expected, dtype)
                assert_close(actual, expected_grads, dtype, factor=4)


@contract
def test_value_without_gradient(spec, device):
    """Whether somebody watches changes no bit of the value."""
    for case in (*spec.cases[:2], *spec.hard_cases):
        arguments = case.build(Maker(torch.float32, device, requires_grad=True))
        plain = tuple(a.detach() if torch.is_tensor(a) else a for a in arguments)
        for name in backends_for(device):
            if runs_on(name, spec.function, plain):
                with kdops.backend(name):
                    watched, unwatched = spec.function(*arguments), spec.function(*plain)
                    with torch.no_grad():
                        switched_off = spec.function(*arguments)
                for other in (unwatched, switched_off):
                    pairs = zip(tensors_in(watched), tensors_in(other), strict=True)
                    assert all(torch.equal(a, b) for a, b in pairs), (case.label, name)


@contract
def test_gradcheck(spec, device):
    for case in spec.small_cases:
        arguments = case.build(Maker(device=device, requires_grad=True))
        function = through(tensors_in_tuple, through(spec.invariant, spec.function))
        assert torch.autograd.gradcheck(function, arguments, check_batched_grad=True)


@contract
def test_gradgradcheck(spec, device):
    for case in spec.small_cases:
        arguments = case.build(Maker(device=device, requires_grad=True))
        function = through(tensors_in_tuple, through(spec.invariant, spec.function))
        assert torch.autograd.gradgradcheck(function, arguments)


@pytest.mark.slow
@contract
def test_opcheck(spec, device):
    if not spec.op_calls:
        pytest.skip("made of other ops, which have their own opcheck")
    for name, build in spec.op_calls:
        op = getattr(torch.ops.kdops, name).default
        for grad in (False, True):
            torch.library.opcheck(op, build(Maker(torch.float32, device, requires_grad=grad)))


@pytest.mark.slow
@contract
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile(spec, device, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(spec.function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for case in spec.cases[:2]:
        arguments = case.build(Maker(device=device, requires_grad=True))
        eager = spec.invariant(spec.function(*arguments))
        assert_close(spec.invariant(compiled(*arguments)), eager, torch.float64)
        actual = gradients(through(spec.invariant, compiled), arguments)
        expected = gradients(through(spec.invariant, spec.function), arguments)
        assert_close(actual, expected, torch.float64)


@contract
def test_export(spec, device):
    class Module(torch.nn.Module):
        def forward(self, *arguments):
            return spec.function(*arguments)

    arguments = spec.cases[0].build(Maker(torch.float32, device))
    if not all(map(torch.is_tensor, arguments)):
        pytest.skip("the case holds arguments that are no tensors")
    program = torch.export.export(Module(), arguments)
    result = program.module()(*arguments)
    assert_close(spec.invariant(result), spec.invariant(spec.function(*arguments)), torch.float32)


@contract
def test_vmap(spec, device):
    for case in spec.cases[:2]:
        stacked = case.build(Maker(device=device, batch=3))
        if not all(map(torch.is_tensor, stacked)):
            continue
        mapped = torch.func.vmap(lambda *a: tuple(tensors_in(spec.function(*a))))(*stacked)
        for i in range(3):
            single = spec.function(*(a[i] for a in stacked))
            expected = spec.invariant(single)
            rebuilt = like(single, [t[i] for t in mapped])
            assert_close(spec.invariant(rebuilt), expected, torch.float64)


@contract
def test_torch_func_grad(spec, device):
    arguments = spec.small_cases[0].build(Maker(device=device, requires_grad=True))
    places = tuple(i for i, a in enumerate(arguments) if torch.is_tensor(a) and a.requires_grad)
    plain = tuple(a.detach() if torch.is_tensor(a) else a for a in arguments)
    actual = torch.func.grad(energy(spec), argnums=places)(*plain)
    expected = torch.autograd.grad(energy(spec)(*arguments), differentiable(arguments))
    assert_close(actual, expected, torch.float64)


@contract
def test_vmap_of_grad(spec, device):
    stacked = spec.small_cases[0].build(Maker(device=device, batch=3))
    per_item = torch.func.vmap(torch.func.grad(energy(spec)))(*stacked)
    for i in range(3):
        expected = torch.func.grad(energy(spec))(*(a[i] for a in stacked))
        assert_close(per_item[i], expected, torch.float64)


@contract
def test_autocast(spec, device):
    """Under autocast half inputs are computed in float32 and the gradient has their dtype."""
    arguments = spec.cases[0].build(Maker(torch.bfloat16, device, requires_grad=True))
    with torch.autocast(device, torch.bfloat16):
        result = spec.function(*arguments)
    assert all(t.dtype == torch.float32 for t in tensors_in(result))
    reference, exact = on_reference(spec, arguments)
    assert_close(spec.invariant(result), spec.invariant(reference(*exact)), torch.float32)
    outputs = [t for t in tensors_in(spec.invariant(result)) if t.requires_grad]
    grads = torch.autograd.grad([o.sum() for o in outputs], differentiable(arguments))
    assert all(g.dtype == torch.bfloat16 and g.isfinite().all() for g in grads)


@contract
@pytest.mark.parametrize("dtype", _inputs.HALVES, ids=str)
def test_half(spec, device, dtype):
    """Half types give the float32 result, rounded once."""
    for case in spec.cases:
        arguments = case.build(Maker(dtype, device, requires_grad=True))
        reference, exact = on_reference(spec, arguments)
        result = spec.function(*arguments)
        assert_close(spec.invariant(result), spec.invariant(reference(*exact)), dtype)
        grads = gradients(through(spec.invariant, spec.function), arguments)
        assert all(g.dtype == dtype and g.isfinite().all() for g in grads), case.label


@contract
def test_layouts(spec, device):
    """Strides change nothing: not the value, not the gradient."""
    for case in spec.cases[:3]:
        for layout in spec.layouts:
            arguments = case.build(Maker(device=device, requires_grad=True, layout=layout))
            dense = tuple(
                a.detach()
                .clone(memory_format=torch.contiguous_format)
                .requires_grad_(a.requires_grad)
                if torch.is_tensor(a)
                else a
                for a in arguments
            )
            function = through(spec.invariant, spec.function)
            assert_close(function(*arguments), function(*dense), torch.float64)
            assert_close(gradients(function, arguments), gradients(function, dense), torch.float64)


@contract
def test_empty(spec, device):
    if not spec.empty_cases:
        pytest.fail("every op says what it does with empty input")
    for case in spec.empty_cases:
        for name in backends_for(device):
            arguments = case.build(Maker(device=device, requires_grad=True))
            if runs_on(name, spec.function, arguments):
                with kdops.backend(name):
                    results = tensors_in(spec.function(*arguments))
                    total = sum(t.sum() for t in results)
                assert all(t.isfinite().all() for t in results), case.label
                if total.requires_grad:
                    grads = torch.autograd.grad(total, differentiable(arguments), allow_unused=True)
                    assert all(g is None or g.isfinite().all() for g in grads), case.label


@contract
def test_deterministic(spec, device):
    """Bitwise the same in 20 runs, and for one thread as for three."""
    for case in spec.cases[:2]:
        arguments = case.build(Maker(torch.float32, device, requires_grad=True))

        def run(arguments=arguments):
            return tensors_in(spec.function(*arguments)) + gradients(spec.function, arguments)

        first, before = run(), torch.get_num_threads()
        for i in range(20):
            torch.set_num_threads(1 if i == 0 else 3)
            again = run()
            torch.set_num_threads(before)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), case.label


@contract
def test_argument_errors(spec, device):
    if not spec.errors:
        pytest.fail("every op says what it refuses")
    for case in spec.errors:
        with pytest.raises(case.exception, match=case.message):
            spec.function(*case.build(Maker(torch.float64, device)))


@contract
def test_inputs_untouched(spec, device):
    arguments = spec.cases[0].build(Maker(torch.float32, device))
    before = [a.clone() for a in arguments if torch.is_tensor(a)]
    spec.function(*arguments)
    after = [a for a in arguments if torch.is_tensor(a)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_every_public_op_has_a_spec():
    """A public function that computes must be in specs/."""
    tools = {"FeatureTap", "backend", "build_info", "explain"}
    covered = {spec.name.split("[")[0] for spec in SPECS}
    assert set(kdops.__all__) - tools <= covered
    assert _backends.registered_ops(), "no op registered a backend"
