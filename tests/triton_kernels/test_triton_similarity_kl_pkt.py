"""The Triton kernel of pkt_loss: interpreted against the references, and compiled ahead of time."""

import pytest
from support.kernel_runs import interpret

pytest.importorskip("triton")

INTERPRETED = """
import torch
from kdops import _triton
from kdops.ops.similarity_kl import gradient, reference, triton_pkt as T
from kdops.testing import assert_close, poisoned_empty

torch.manual_seed(0)
DTYPE = torch.{dtype}
randn = torch.randn

def check(student, teacher, epsilon=1e-7):
    s, t = student.to(DTYPE), teacher.to(DTYPE)
    with poisoned_empty():
        loss, grad = T.pkt(s, t, epsilon, True)
    assert loss.dtype == grad.dtype == DTYPE
    assert_close(loss, reference.pkt_loss(s.double(), t.double(), epsilon), DTYPE)
    expected = gradient.pkt_gradient(s.double(), t.double(), epsilon)
    assert_close(grad, expected, DTYPE, factor=4)
    alone, none = T.pkt(s, t, epsilon, False)
    assert torch.equal(alone, loss) and none.numel() == 0
    return loss, grad

# several tiles, chunks and parts, in one part; read where they lie
check(randn(34, 140), randn(34, 9))
programs, _triton.PROGRAMS = _triton.PROGRAMS, 1
check(randn(5, 34).T, randn(68, 9)[::2], epsilon=1e-3)
_triton.PROGRAMS = programs

# close rows keep their digits, opposite ones have no share, a zero row no gradient; short rows
s, t = 1 + 0.01 * randn(20, 24), randn(20, 8)
t[:2] = torch.tensor([[1.0], [-1.0]])
s[5] = 0
_, grad = check(s, t)
assert not grad[5].any()
check(1e-6 * randn(9, 4), randn(9, 4))
for width, apart, far in ((1e-2, 100, 1), (1, 0, 1e5), (1, 0, 1e20)):
    x = width * randn(12, 6, dtype=torch.double)
    x[:6] += apart
    x[3] *= far
    check(x, randn(12, 4))

# identical networks, up to epsilon, which is part of the published number
loss, grad = T.pkt(s, s, 1e-7, True)
assert loss.abs() < 1e-12 and grad.abs().max() < 1e-8

for row in (s, t):
    before = row[4, 1].clone()
    row[4, 1] = float("nan")
    assert T.pkt(s.to(DTYPE), t.to(DTYPE), 1e-7, False)[0].isnan()
    row[4, 1] = before
loss, grad = T.pkt(randn(1, 3).to(DTYPE), randn(1, 2).to(DTYPE), 1e-7, True)
assert loss == 0 and grad.abs().max() < 1e-12
check(randn(4, 0), randn(4, 2))
loss, grad = T.pkt(randn(0, 3), randn(0, 2), 1e-7, True)
assert loss == 0 and grad.shape == (0, 3)
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_interpreter_against_the_references(dtype):
    interpret(INTERPRETED.format(dtype=dtype))
