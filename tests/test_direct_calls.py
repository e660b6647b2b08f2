"""torch.ops.kdops.* called directly, past the checks of the public functions, with arguments that
do not belong together: an exception or a defined answer, never a crash.

The example calls of op_specs.py, with every argument in turn replaced: tensors one longer or
shorter in each of their dimensions, with a dimension more or less, missing, or of another dtype;
integers far outside. Each op has a process of its own, so that a crash (also a delayed one, of a
damaged heap) shows whose it is. A cotangent of another shape must be refused: no op has a use for
it. An op may convert a dtype; then the answer is that of the converted argument.
"""

import os
import sys
from pathlib import Path

import pytest
import torch
from new_process import run_python
from op_specs import SPECS

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
            call_wrongly(name)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status != 0:
            print(f"{name} crashed: status {status}", flush=True)


def op_names():
    return sorted({name for spec in SPECS for name, _ in spec.op_calls})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_no_crash_and_no_wrong_cotangent():
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_direct_calls as calls
        calls.in_a_process_each(calls.op_names())
    """
    printed = run_python(code, OMP_NUM_THREADS="1")  # a fork has no thread but its own
    assert printed == ""


def test_messages_of_the_decompositions():
    """Op, argument, expected and found."""
    A, ops = torch.ones(2, 300, 300), torch.ops.kdops
    U, S, Vh = (torch.ones(s) for s in ((2, 9, 3), (2, 3), (2, 3, 7)))
    saved = torch.ones(2, 10, 7)
    for message, call in {
        "svd_topk: expected 1 <= k <= min(m, n, 32) = 7, got k = 17": lambda: ops.svd_topk(
            A[:, :9, :7], 17, True, True, False
        ),
        "svd: expected min(m, n) <= 128": lambda: ops.svd(A, True, True, False, False),
        "svdvals: expected min(m, n) <= 128": lambda: ops.svdvals(A),
        "eigh: expected min(m, n) <= 128": lambda: ops.eigh(A),
        "svd_topk_backward: expected saved of size 10 in dimension 1, got shape [2, 9, 7]": (
            lambda: ops.svd_topk_backward(
                None, S, None, A[:, :9, :7], U, S, Vh, saved[:, :9], False
            )
        ),
        "svd_backward: expected S of size 2 in dimension 0, got shape [1, 3]": (
            lambda: ops.svd_backward(None, None, None, U, S[:1], torch.ones(2, 3, 3), False)
        ),
    }.items():
        with pytest.raises(RuntimeError) as error:
            call()
        assert message in str(error.value)
