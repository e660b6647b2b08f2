"""The Triton kernels of the pairwise ops and similarity: interpreted against the references, and
compiled ahead of time."""

import pytest
from support.kernel_runs import interpret

pytest.importorskip("triton")

INTERPRETED = """
import torch
from kdops.ops.relation import gradient, reference, triton as T, triton_similarity
from kdops.testing import assert_close

torch.manual_seed(0)
DTYPE = torch.{dtype}

def exact(*tensors):
    return [None if t is None else t.double() for t in tensors]

def check_pairs(x, y):
    x, y = x.to(DTYPE), None if y is None else y.to(DTYPE)
    for squared in (False, True):
        d = T.pairwise_distance(x, y, squared)
        wide = reference.pairwise_distance(*exact(x, y), squared)
        assert_close(d, wide, DTYPE)
        grad = torch.randn(d.shape, dtype=DTYPE)
        actual = T.pairwise_distance_backward(grad, x, y, squared, d)
        expected = gradient.pairwise_distance_gradient(*exact(grad, x, y), squared, wide)
        assert_close(actual, expected, DTYPE, factor=4)
    c = T.pairwise_cosine(x, y)
    assert_close(c, reference.pairwise_cosine(*exact(x, y)), DTYPE)
    actual = T.pairwise_cosine_backward(grad, x, y)
    expected = gradient.pairwise_cosine_gradient(*exact(grad, x, y))
    assert_close(actual, expected, DTYPE, factor=4)
    return d

check_pairs(torch.randn(2, 70, 5), torch.randn(2, 40, 5))
check_pairs(torch.randn(1, 33, 70), torch.randn(1, 65, 70))
check_pairs(5 + torch.randn(2, 66, 37), None)
# rows of which a product keeps few digits
for width, apart, far in ((1e-2, 100, 1), (1, 0, 1e5)):
    x = width * torch.randn(1, 24, 6)
    x[0, :12] += apart
    x[0, 3] *= far
    check_pairs(x, None)
    check_pairs(x, x[:, :5])

# distances whose squares vanish: value, and the gradient where only such pairs weigh
for small in {small}:
    x = torch.randn(1, 12, 6, dtype=torch.double)
    x[0, 5:8] *= small
    x = x.to(DTYPE)
    for y in (None, x[:, 4:7].clone()):
        d = T.pairwise_distance(x, y, False)
        wide = reference.pairwise_distance(*exact(x, y))
        near = wide < 100 * small
        assert near.sum() >= 4
        assert_close(d[near], wide[near], DTYPE)
        grad = torch.where(near, torch.randn(d.shape, dtype=DTYPE), 0)
        actual = T.pairwise_distance_backward(grad, x, y, False, d)
        wide_x, wide_y = exact(x, x if y is None else y)
        ways = (wide_x[:, :, None] - wide_y[:, None]) / wide.clamp(min=1e-300)[..., None]
        ways *= grad.double()[..., None]
        expected = [ways.sum(2), -ways.sum(1)]
        expected = [expected[0] + expected[1]] if y is None else expected
        assert_close(actual[: len(expected)], expected, DTYPE, factor=4)
# and distances without a finite reciprocal: the gradient is clipped
x = {least} * torch.arange(6, dtype=DTYPE)[None, :, None]
d = T.pairwise_distance(x, None, False)
assert (d == (x - x.mT).abs()).all()
assert T.pairwise_distance_backward(torch.ones_like(d), x, None, False, d)[0].isfinite().all()

x = torch.randn(1, 40, 3)
x[0, 30] = x[0, 2]
d = check_pairs(x, None)[0]
assert d[30, 2] == 0 and (d.diagonal() == 0).all() and torch.equal(d, d.mT)
x[0, 7] = float("nan")
d = T.pairwise_distance(x, None, False)[0]
assert d[7].isnan().all() and d[:7, :7].isfinite().all()

for n, d_s, d_t in ((70, 5, 40), (1, 3, 3), (9, 66, 2)):
    student, teacher = torch.randn(n, d_s).to(DTYPE), torch.randn(n, d_t).to(DTYPE)
    loss, grad = triton_similarity.similarity(student, teacher, True)
    s, t = exact(student, teacher)
    if n > 1:
        assert_close(loss, reference.similarity_loss(s, t), DTYPE, factor=4)
        assert_close(grad, gradient.similarity_gradient(s, t), DTYPE, factor=4)
    assert triton_similarity.similarity(student, teacher, False)[1].numel() == 0
assert triton_similarity.similarity(torch.randn(0, 3), torch.randn(0, 3), True)[0] == 0
for n, m, width in ((0, 3, 2), (3, 0, 2), (3, 2, 0)):
    d = T.pairwise_distance(torch.randn(1, n, width), torch.randn(1, m, width), False)
    assert d.shape == (1, n, m) and (d == 0).all()
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_interpreter_against_the_references(dtype):
    small, least = VANISHING[dtype]
    interpret(INTERPRETED.format(dtype=dtype, small=small, least=least))


# sizes of rows whose squared distances vanish, and the least number
VANISHING = {"float32": ((1e-25, 1e-37), 1.4e-45), "float64": ((1e-142,), 5e-324)}
