"""Every op of torch.ops.kdops called with arguments that do not belong together: what
test_direct_calls.py runs, in a process of its own."""

import os
import signal
import sys

import torch
from specs import SPECS

from kdops.testing import Maker, tensors_in

INTEGERS = (-1, 0, 17, 1000)


def wrong_tensors(x):
    """(what is wrong, the tensor) for a tensor argument."""
    for axis, size in enumerate(x.shape):
        for other in (size + 1, max(size - 1, 0)):
            shape = (*x.shape[:axis], other, *x.shape[axis + 1 :])
            yield f"size {other} in dimension {axis}", x.new_ones(shape)
    yield "a dimension more", x.unsqueeze(0)
    if x.dim():
        yield "a dimension less", x.new_ones(x.shape[1:])
    yield "dtype int32", x.to(torch.int32)
    yield "dtype float64", x.double()
    yield "missing", None


def wrong_calls(op, arguments):
    """(what is wrong, must it be refused, the arguments)"""
    names = [argument.name for argument in op.default._schema.arguments]
    floating = sum(torch.is_tensor(a) and a.is_floating_point() for a in arguments)
    for i, (name, value) in enumerate(zip(names, arguments, strict=True)):
        wrong = ()
        if torch.is_tensor(value):
            wrong = wrong_tensors(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            wrong = ((f"{n}", n) for n in INTEGERS)
        cotangent = "_backward" in op.default.name() and name.startswith("g") and name != "gamma"
        for what, other in wrong:
            by_others = cotangent and floating > 1  # what it must be is known from other tensors
            refused = by_others and ("size" in what or "dimension" in what)
            yield f"{name}: {what}", refused, (*arguments[:i], other, *arguments[i + 1 :])


def is_of_converted(op, found, arguments, originals):
    """Whether the answer is that of the tensors in the dtypes of the originals. True where one
    tensor decides: then the call is as good in another dtype."""
    if sum(torch.is_tensor(a) and a.is_floating_point() for a in originals) == 1:
        return True
    pairs = zip(arguments, originals, strict=True)
    same = (a.to(o.dtype) if torch.is_tensor(a) else a for a, o in pairs)
    answers = zip(tensors_in(found), tensors_in(op(*same)), strict=True)
    return all(
        torch.allclose(a.double(), b.double(), rtol=1e-3, equal_nan=True) for a, b in answers
    )


def examples(name):
    """The arguments of every example call of one op."""
    for spec in SPECS:
        for op, build in spec.op_calls:
            if op == name:
                yield build(Maker(torch.float32))


def call_wrongly(name):
    """Prints every call beforehand, and what should have been refused."""
    op = getattr(torch.ops.kdops, name)
    for arguments in examples(name):
        for what, refused, wrong in wrong_calls(op, arguments):
            print(f"{name}, {what}", file=sys.stderr, flush=True)
            try:
                found = op(*wrong)
            except (RuntimeError, TypeError, ValueError, IndexError):
                continue
            if refused or not ("dtype" not in what or is_of_converted(op, found, wrong, arguments)):
                print(f"{name} accepted {what}", flush=True)


def in_a_process_each(names):
    """Calls every op wrongly in a fork; the ops that crashed and what was accepted are printed."""
    for name in names:
        child = os.fork()
        if child == 0:
            signal.alarm(120)  # a call that does not return is a crash, too
            call_wrongly(name)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status != 0:
            print(f"{name} crashed: status {status}", flush=True)


def op_names():
    return sorted({name for spec in SPECS for name, _ in spec.op_calls})
