"""The Triton kernels of the attention map: against the references, and compiled ahead of time."""

import pytest
from support.kernel_runs import interpret

pytest.importorskip("triton")

INTERPRETED = """
import torch
from torch.testing import assert_close as assert_equal
from kdops.ops.attention import gradient, reference, triton as T
from kdops.testing import assert_close

torch.manual_seed(0)
DTYPE = torch.{dtype}
NAN, INF = float("nan"), float("inf")

def check(x, p, largest):
    q = T.attention_map(x, p, largest)
    grad = torch.randn(q.shape, dtype=DTYPE)
    wide = x.double(), p, largest
    assert_close(q, reference.attention_map(*wide), DTYPE)
    gx = T.attention_map_backward(grad, x, p, largest)
    assert_close(gx, gradient.attention_map_backward(grad.double(), *wide), DTYPE)
    assert (gx[x == 0] == 0).all()
    fake = torch.ops.kdops.attention_map_backward(grad.to("meta"), x.to("meta"), p, largest)
    assert gx.shape == fake.shape
    return q, gx

def layouts(x):
    wide = torch.full((*x.shape[:2], 2 * x.shape[2] + 1), NAN, dtype=x.dtype)
    wide[..., 1::2] = x
    return x, x.mT.contiguous().mT, wide[..., 1::2], x[:1].expand(x.shape)

# every exponent and reduction, more channels and positions than a tile, zeros, equal channels
for p in (1.0, 2.0, 3.0, 4.0, 0.5, 2.3):
    x = torch.randn(2, 35, 40).to(DTYPE)
    x[0, :, 3] = 0
    x[:, 5] = -x[:, 2]
    for largest in (False, True):
        check(x, p, largest)

# every layout, read where it lies; the gradient lies as the maps do
for shape in ((2, 33, 34), (3, 1, 5), (1, 7, 1)):
    for x in layouts(torch.randn(shape).to(DTYPE)):
        for largest in (False, True):
            _, gx = check(x, 3.0, largest)
x = torch.randn(2, 5, 7).to(DTYPE).mT.contiguous().mT
assert T.attention_map_backward(x[:, 0], x, 2.0, False).stride() == x.stride()
x = torch.randn(2, 3, 4).to(DTYPE)
one = torch.ones(1, 1, dtype=DTYPE).expand(2, 4)
assert_equal(T.attention_map_backward(one, x, 2.0, False), 2 * x)
turned = torch.randn(4, 2).to(DTYPE).T
assert_equal(T.attention_map_backward(turned, x, 2.0, False), 2 * x * turned[:, None])

# of equal largest channels the first receives the gradient; also over several tiles of channels
x = torch.zeros(1, 100, 4, dtype=DTYPE)
x[0, [70, 40, 99], 0] = torch.tensor([-2.0, 2.0, 2.0], dtype=DTYPE)
x[0, :, 1] = -1
x[0, [3, 64], 2] = torch.tensor([INF, -INF], dtype=DTYPE)
gx = T.attention_map_backward(torch.ones(1, 4, dtype=DTYPE), x, 3.0, True)
assert gx[0, 40, 0] == 12 and gx[0, 0, 1] == -3 and gx[0, 3, 2] == INF
assert gx.count_nonzero() == 3

# a NaN stays in its own position, whatever comes after it; the first one is chosen
x = torch.randn(2, 70, 33).to(DTYPE)
x[1, [50, 67, 35], 2] = NAN  # 35 and 67 meet in one lane
x[0, 1, 32] = NAN
lost = x.isnan().any(1)
for largest in (False, True):
    for p in (2.0, 1.5):
        assert torch.equal(T.attention_map(x, p, largest).isnan(), lost)
        gx = T.attention_map_backward(torch.ones(2, 33, dtype=DTYPE), x, p, largest)
        expected = x.isnan()
        if largest:
            expected[1, [50, 67], 2] = False
        assert torch.equal(gx.isnan(), expected)

# far from one: 1e+15 and 1e-15, as precise as a power is
for scale in (1e15, 1e-15):
    check(scale * torch.rand(1, 3, 4).to(DTYPE), 2.3, False)
    check(scale * torch.rand(1, 3, 4).to(DTYPE), 2.0, True)

# the loss between two maps and its derivative by the student's, a zero and an equal map among them
student, teacher = torch.randn(4, 5, 37).to(DTYPE), torch.randn(4, 34, 37).to(DTYPE)
student[1] = 0
teacher[2], teacher[2, :5] = 0, student[2]
for paper in (False, True):
    for largest in (False, True):
        for scale in (1.0, 2.0**66, 2.0**-66):  # whose powers leave float32: brought back
            options = 2.5, largest, paper
            scaled = student * scale
            loss, pull, unit = T.attention_loss(scaled, teacher / scale, *options)
            wide = student.double(), teacher.double(), *options
            assert_close(loss, reference.attention_loss(*wide), DTYPE)
            gx = T.attention_loss_backward(pull, unit, scaled, *options[:2]) * scale
            expected = gradient.attention_loss_gradient(*wide)
            assert_close(gx[[0, 1, 3]], expected[[0, 1, 3]], DTYPE, factor=4)
            assert gx[2].isfinite().all() and not gx[1].any()
            assert (unit == 1).all() == (scale == 1.0 or DTYPE == torch.float64)

# of a denormal map the gradient is clipped
if DTYPE == torch.float32:
    loss, pull, unit = T.attention_loss(student * 1e-41, teacher, 2.0, False, False)
    gx = T.attention_loss_backward(pull, unit, student * 1e-41, 2.0, False)
    assert loss.isfinite() and gx.isfinite().all() and gx[0].any()

for shape in ((0, 3, 4), (2, 0, 4), (2, 3, 0)):
    x = torch.empty(shape, dtype=DTYPE)
    for largest in (False, True):
        q = T.attention_map(x, 2.0, largest)
        assert q.shape == (shape[0], shape[2]) and (q == 0).all()
        assert T.attention_map_backward(q, x, 2.0, largest).shape == shape
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_interpreter_against_the_references(dtype):
    interpret(INTERPRETED.format(dtype=dtype))
