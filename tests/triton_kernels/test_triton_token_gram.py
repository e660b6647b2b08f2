"""The Triton kernels of gram_anchoring_loss and cka_loss: interpreted against the references, and
compiled ahead of time."""

import pytest
from support.kernel_runs import interpret

pytest.importorskip("triton")

INTERPRETED = """
import torch
from kdops import _triton
from kdops.ops.token_gram import gradient, reference, triton as T
from kdops.testing import assert_close, poisoned_empty

torch.manual_seed(0)
DTYPE = torch.{dtype}
NAN = float("nan")

def check(student, teacher, weights=None, kinds=(0,)):
    given = [x if x is None else x.to(DTYPE) for x in (student, teacher, weights)]
    exact = [x if x is None else x.double() for x in given]
    for negatives in kinds:
        with poisoned_empty():
            loss, grad = T.gram_anchoring_loss(*given, negatives, True)
        assert loss.dtype == grad.dtype == DTYPE
        assert_close(loss, reference.gram_anchoring_loss(*exact, negatives), DTYPE)
        expected = gradient.gram_anchoring_gradient(*exact, negatives)
        assert_close(list(grad), list(expected), DTYPE, factor=4)  # each image by its own size
    return loss, grad

# several tiles, chunks and parts; in one part
student, teacher = torch.randn(2, 34, 5).to(DTYPE), torch.randn(2, 34, 40).to(DTYPE)
loss, _ = check(student, teacher, torch.tensor([0.3, 0.0]), kinds=(0, 1, 2))
alone, none = T.gram_anchoring_loss(student, teacher, torch.tensor([0.3, 0.0]), 2, False)
assert torch.equal(alone, loss) and none.numel() == 0
check(torch.randn(1, 33, 140), torch.randn(1, 33, 7), kinds=(1,))
programs, _triton.PROGRAMS = _triton.PROGRAMS, 1
check(student, teacher, kinds=(2,))
_triton.PROGRAMS = programs

# tokens that are read where they lie
maps, longer = torch.randn(2, 6, 9), torch.randn(2, 18, 9)
check(maps.mT, longer[:, ::2], kinds=(1,))

# student and teacher alike, a large common part, clusters: one image of two needs double
student = torch.randn(2, 20, 24)
near = student + torch.tensor([1e-3, 1.0]).view(2, 1, 1) * torch.randn(2, 20, 24)
check(student, near)
check(student[:1], near[:1])
check(student + torch.tensor([3.0, 100.0]).view(2, 1, 1), near)
for width, apart, far in ((1e-2, 100, 1), (1, 0, 1e5), (1, 0, 1e20), (4e-38, 0, 1)):
    x = width * torch.randn(1, 12, 6, dtype=torch.double)
    x[0, :6] += apart
    x[0, 3] *= far
    check(x, torch.randn(1, 12, 4))
loss, grad = T.gram_anchoring_loss(student.to(DTYPE), student.to(DTYPE), None, 0, True)
assert loss == 0 and not grad.any()

# a zero token has no gradient; of a NaN the gradients of other images see nothing
student, teacher = torch.randn(3, 33, 6).to(DTYPE), torch.randn(3, 33, 5).to(DTYPE)
student[0, 3], teacher[2, 4] = 0, 0
_, clean = check(student, teacher, kinds=(1,))
assert not clean[0, 3].any() and clean[2, 4].any()
for lost in (student, teacher):
    before = lost[1, 7, 2].clone()
    lost[1, 7, 2] = NAN
    loss, grad = T.gram_anchoring_loss(student, teacher, None, 1, True)
    assert loss.isnan() and torch.equal(grad[[0, 2]], clean[[0, 2]])
    expected = gradient.gram_anchoring_gradient(student, teacher, None, 1)
    assert torch.equal(grad.isnan(), expected.isnan()) and grad[1, 7].isnan().all()
    lost[1, 7, 2] = before

check(torch.zeros(1, 5, 3), torch.randn(1, 5, 2))
for shape, width in (((0, 3, 2), 2), ((2, 0, 3), 4), ((2, 3, 0), 0), ((2, 3, 0), 4)):
    student, teacher = torch.randn(shape, dtype=DTYPE), torch.randn(*shape[:2], width, dtype=DTYPE)
    loss, grad = T.gram_anchoring_loss(student, teacher, None, 0, True)
    assert grad.shape == shape and not grad.any()
    assert_close(loss, reference.gram_anchoring_loss(student, teacher, None, 0), DTYPE)
"""

INTERPRETED_CKA = """
import torch
from kdops.ops.token_gram import cka, triton_cka as T
from kdops.testing import assert_close, poisoned_empty

torch.manual_seed(0)
DTYPE = torch.{dtype}
NAN = float("nan")

def check(student, teacher, inside=None, kinds=(True, False)):
    student, teacher = student.to(DTYPE), teacher.to(DTYPE)
    exact = student.double(), teacher.double(), inside
    for centred in kinds:
        with poisoned_empty():
            loss, grad = T.cka_loss(student, teacher, inside, centred, True)
        assert loss.dtype == grad.dtype == DTYPE
        assert_close(loss, cka.cka_loss(*exact, centred), DTYPE)
        expected = cka.cka_gradient(*exact, centred)
        assert_close(list(grad), list(expected), DTYPE, factor=4)  # each matrix by its own size
        alone, none = T.cka_loss(student, teacher, inside, centred, False)
        assert torch.equal(alone, loss) and none.numel() == 0
    return loss, grad

# by rows: one tile, several, several chunks; by columns
check(torch.randn(3, 9, 20), torch.randn(3, 9, 13))
check(torch.randn(2, 70, 60), torch.randn(2, 70, 50))
check(torch.randn(1, 33, 140), torch.randn(1, 33, 7))
check(torch.randn(2, 90, 7), torch.randn(2, 90, 5))

# rows read where they lie, padding, large offsets and scales
check(torch.randn(2, 40, 33).mT, torch.randn(2, 66, 20)[:, ::2])
for width in (40, 4):
    inside = torch.rand(2, 50) > 0.3
    student, teacher = torch.randn(2, 50, width), torch.randn(2, 50, width + 1)
    loss, grad = check(student, teacher, inside)
    assert not grad[~inside].any()
    student[~inside], teacher[~inside] = NAN, NAN
    padded, again = check(student, teacher, inside)
    assert torch.equal(padded, loss) and torch.equal(again, grad)
    student = torch.randn(2, 50, width, dtype=torch.double)
    for scale, offset in ((1e20, 0), (1e-20, 0), (1, 30)):
        moved = (student * scale + offset).to(DTYPE)
        check(moved, teacher.nan_to_num(), kinds=(True,))

# equal rows; rows without variance; of a NaN other matrices see nothing
same = torch.randn(2, 40, 40)
loss, grad = T.cka_loss(same.to(DTYPE), same.to(DTYPE), None, True, True)
assert loss == 0 and not grad.any()
for constant, teacher in ((same * 0 + 3, same), (same, same * 0)):
    for width in (40, 3):
        student, other = constant[..., :width].to(DTYPE), teacher[..., :width].to(DTYPE)
        loss, grad = T.cka_loss(student, other, None, True, True)
        assert loss == 1 and not grad.any()
student, teacher = torch.randn(3, 9, 4).to(DTYPE), torch.randn(3, 9, 5).to(DTYPE)
clean = T.cka_loss(student, teacher, None, True, True)[1]
student[1, 2, 0] = NAN
loss, grad = T.cka_loss(student, teacher, None, True, True)
assert loss.isnan() and torch.equal(grad[[0, 2]], clean[[0, 2]]) and grad[1].isnan().all()

EMPTY = ((0, 3, 2), 2), ((2, 0, 3), 4), ((2, 1, 3), 4), ((2, 3, 0), 0), ((2, 3, 0), 4)
for shape, width in EMPTY:
    student, teacher = torch.randn(shape, dtype=DTYPE), torch.randn(*shape[:2], width, dtype=DTYPE)
    loss, grad = T.cka_loss(student, teacher, None, True, True)
    assert grad.shape == shape and not grad.any()
    assert loss == cka.cka_loss(student, teacher, None, True)
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("code", [INTERPRETED, INTERPRETED_CKA], ids=["anchoring", "cka"])
def test_interpreter_against_the_references(code, dtype):
    interpret(code.format(dtype=dtype))
