"""torch.ops.kdops.* called directly, past the checks of the public functions, with arguments that
do not belong together: an exception or a defined answer, never a crash.

The example calls of tests/specs, with every argument in turn replaced: tensors one longer or
shorter in each of their dimensions, with a dimension more or less, missing, or of another dtype;
integers far outside. Each op has a process of its own, so that a crash (also a delayed one, of a
damaged heap) shows whose it is. A cotangent of another shape must be refused: no op has a use for
it. An op may convert a dtype; then the answer is that of the converted argument.
"""

import os

import pytest
import torch
from support.new_process import run_python


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_no_crash_and_no_wrong_cotangent():
    code = "from support import wrong_calls; wrong_calls.in_a_process_each(wrong_calls.op_names())"
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
