"""The Triton kernels of pairwise_angle: interpreted against the references, and compiled ahead of
time."""

import pytest
from support.kernel_runs import interpret

pytest.importorskip("triton")

INTERPRETED = """
import torch
from kdops.ops.relation import gradient, reference, triton_angle as T
from kdops.testing import assert_close

torch.manual_seed(0)
DTYPE = torch.{dtype}

def check(x, turned=False):
    x = x.to(DTYPE)
    cosines = T.pairwise_angle(x)
    assert_close(cosines, reference.pairwise_angle(x.double()), DTYPE)
    grad = torch.randn(cosines.shape, dtype=DTYPE)
    if turned:
        grad = grad.permute(2, 0, 1)
    gx = T.pairwise_angle_backward(grad, x)
    expected = gradient.pairwise_angle_gradient(grad.double(), x.double())
    assert_close(gx, expected, DTYPE, factor=4)
    return cosines, gx

# more rows than a tile, anchors in several parts and in one
T.PROGRAMS = 16
check(torch.randn(35, 9), turned=True)
T.PROGRAMS = 1
check(3 + torch.randn(6, 5))

# equal rows have no direction and no gradient of their own
x = torch.randn(7, 3)
x[5] = x[2]
cosines, gx = check(x)
assert (cosines[5, 2] == 0).all() and (cosines[2, :, 5] == 0).all()
cosines, gx = check(torch.ones(4, 3))
assert (cosines == 0).all() and (gx == 0).all()

# rows of which float and double keep too few digits: clusters, one far away, near each other
for width, apart, far in ((1e-2, 1, 1), (1e-3, 100, 1), (1, 0, 100), (1, 0, 1e5), (1, 0, 1e20)):
    x = width * torch.randn(12, 6)
    x[:6] += apart
    x[3] *= far
    check(x)

for scale in (1e20, 1e-20):
    check(scale * torch.randn(5, 4))
check(torch.randn(4, 3).T)
check(torch.randn(1, 3))
check(torch.randn(3, 0))
ones = torch.ones((), dtype=DTYPE).expand(5, 5, 5)
x = torch.randn(5, 4, dtype=DTYPE)
expected = gradient.pairwise_angle_gradient(ones.double(), x.double())
assert_close(T.pairwise_angle_backward(ones, x), expected, DTYPE, factor=4)

x = torch.empty(0, 3, dtype=DTYPE)
assert T.pairwise_angle(x).shape == (0, 0, 0)
assert T.pairwise_angle_backward(torch.empty(0, 0, 0, dtype=DTYPE), x).shape == (0, 3)

x = torch.randn(5, 3, dtype=DTYPE)
x[1] = float("nan")
cosines, others = T.pairwise_angle(x), torch.tensor([0, 2, 3, 4])
assert cosines[1].isnan().all() and cosines[:, 1].isnan().all() and cosines[:, :, 1].isnan().all()
assert cosines[others][:, others][:, :, others].isfinite().all()
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_interpreter_against_the_references(dtype):
    interpret(INTERPRETED.format(dtype=dtype))
