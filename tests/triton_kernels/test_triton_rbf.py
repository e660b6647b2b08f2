"""The Triton kernels of rbf: interpreted against the references, and compiled ahead of time."""

import pytest
from support.kernel_runs import interpret

pytest.importorskip("triton")

INTERPRETED = """
import torch
from kdops.ops.rbf import gradient, reference, triton as T
from kdops.ops.rbf.triton_loss import rbf_affinity_loss
from kdops.testing import assert_close

torch.manual_seed(0)
DTYPE = torch.{dtype}

def both(*tensors):
    low = [None if t is None else t.to(DTYPE) for t in tensors]
    return low, [None if t is None else t.double() for t in low]

def check_affinity(x, y, gamma, value=0.3):
    (x, y, gamma), exact = both(x, y, gamma)
    k = T.rbf_affinity(x, y, gamma, value)
    wide = exact[2][:, None, None] if gamma is not None else value
    assert_close(k, reference.rbf_affinity(exact[0], exact[1], wide), DTYPE)
    grad = torch.randn(k.shape, dtype=DTYPE)
    actual = T.rbf_affinity_backward(grad, x, y, gamma, value, k)
    expected = gradient.rbf_affinity_backward(grad.double(), *exact, value)
    assert_close(actual, expected, DTYPE, factor=4)
    return k

def check_loss(student, teacher, gamma, value=0.3):
    (s, t, g), exact = both(student, teacher, gamma)
    actual = rbf_affinity_loss(s, g, t, value, True)
    wide = value if g is None else exact[2]
    expected = gradient.rbf_affinity_loss_and_gradient(exact[0], exact[1], wide)
    assert_close(actual[:2], expected[:2], DTYPE, factor=4)
    if g is not None:
        assert_close(actual[2], expected[2], DTYPE, factor=4)
    alone = rbf_affinity_loss(s, g, t, value, False)
    assert_close(alone[0], expected[0], DTYPE, factor=4)

check_affinity(torch.randn(2, 70, 5), torch.randn(2, 40, 5), None)
check_affinity(torch.randn(2, 33, 70), torch.randn(2, 65, 70), torch.rand(2) * 0.03 + 0.01)
check_affinity(torch.randn(1, 130, 3), None, torch.rand(1) + 0.1)
k = check_affinity(torch.randn(1, 66, 40), None, None, 0.02)
assert torch.equal(k, k.mT) and (k.diagonal(dim1=1, dim2=2) == 1).all()
check_loss(torch.randn(70, 5), torch.randn(70, 9), None)
check_loss(torch.randn(130, 70), torch.randn(130, 3), torch.tensor(0.02))
check_loss(torch.randn(1, 3), torch.randn(1, 3), None)
near = torch.randn(65, 4)
check_loss(near, near + 0.03 * torch.randn(65, 4), torch.tensor(0.4))

# rows of which a product keeps few digits
for width, apart, far in ((1e-2, 100, 1), (1, 0, 1e5)):
    x = width * torch.randn(1, 24, 6)
    x[0, :12] += apart
    x[0, 3] *= far
    check_affinity(x, None, torch.full((1,), 0.1))
    check_affinity(x, x[:, :5], None)
    check_loss(x[0], torch.randn(24, 3), None)

clusters = 100 * torch.randn(2, 1, 16) + 0.01 * torch.randn(2, 20, 16)
exact = clusters.view(40, 16).to(DTYPE).double()
expected = torch.exp(-30 * (exact[:, None] - exact).square().sum(-1))
assert_close(T.rbf_affinity(exact.to(DTYPE)[None], None, None, 30.0)[0], expected, DTYPE)

x = torch.randn(1, 40, 3)
x[0, 7] = float("nan")
k = T.rbf_affinity(x, None, None, 1.0)[0]
assert k[7].isnan().all() and k[:, 7].isnan().all()
assert k[:7, :7].isfinite().all() and k[8:, 8:].isfinite().all()
k = T.rbf_affinity(1e20 * torch.randn(1, 40, 3), None, None, 1.0)[0]
assert torch.equal(k, torch.eye(40))
loss, grad, _ = rbf_affinity_loss(torch.randn(9, 3), None, 1e20 * torch.randn(9, 3), 1.0, True)
assert loss.isfinite() and grad.isfinite().all()
for n, m, d in ((0, 3, 2), (3, 0, 2), (3, 2, 0)):
    k = T.rbf_affinity(torch.randn(1, n, d), torch.randn(1, m, d), None, 1.0)
    assert k.shape == (1, n, m) and (k == 1).all()
assert rbf_affinity_loss(torch.randn(0, 3), None, torch.randn(0, 3), 1.0, True)[0] == 0
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_interpreter_against_the_references(dtype):
    interpret(INTERPRETED.format(dtype=dtype))
