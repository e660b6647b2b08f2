"""What the tests of the contract share: its specs as parameters, and the backends that serve."""

import functools

import pytest
import torch
from specs import SPECS

import kdops
from kdops.testing import tensors_in


def contract(check):
    """Runs `check` for every spec that does not skip it with a reason."""

    @pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
    @functools.wraps(check)
    def run(spec, device, *args, **kwargs):
        if reason := spec.skips.get(check.__name__.removeprefix("test_")):
            pytest.skip(reason)
        if device not in spec.devices:
            pytest.skip(f"only the reference serves these sizes on {device}")
        return check(spec, device, *args, **kwargs)

    return run


def on_reference(spec, arguments):
    """The float64 reference on the values that `arguments` hold, on the CPU."""
    exact = tuple(
        a.detach().double().cpu().requires_grad_(a.requires_grad) if torch.is_tensor(a) else a
        for a in arguments
    )
    return spec.reference, exact


def through(invariant, function):
    return lambda *arguments: invariant(function(*arguments))


def tensors_in_tuple(result):
    return tuple(tensors_in(result))


def backends_for(device):
    return ("native", "reference") if device == "cpu" else ("native", "triton", "reference")


def runs_on(name, function, arguments):
    """Whether every op inside function(arguments) has backend `name` for this problem."""
    try:
        with kdops.backend(name):
            function(*arguments)
    except ValueError as error:
        if "was asked for, but" not in str(error):
            raise
        return False
    return True


def like(result, tensors):
    """`tensors` in the structure of `result` (a tensor, a tuple or a named tuple)."""
    if torch.is_tensor(result):
        return tensors[0]
    rest = iter(tensors)
    values = [next(rest) if torch.is_tensor(item) else item for item in result]
    return type(result)(*values) if hasattr(result, "_fields") else type(result)(values)


def outcome(spec):
    """What is comparable of the result, as a tuple of tensors."""
    return lambda *arguments: tuple(tensors_in(spec.invariant(spec.function(*arguments))))


def energy(spec):
    """A smooth scalar of the result: what torch.func differentiates."""
    function = outcome(spec)
    return lambda *arguments: sum((t * t).sum() for t in function(*arguments))
