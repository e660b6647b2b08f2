"""gram_anchoring_loss beyond the contract: padding, routes, degenerate tokens, isolation."""

import pytest
import torch

import kdops
from kdops.testing import assert_close, poisoned_empty, relative_error

NEGATIVES = ["keep", "drop", "drop_teacher"]
SHAPES = [
    (2, 30, 8, 5),
    (2, 130, 6, 9),
    (1, 250, 40, 30),
]  # tiles; features; both of several blocks


def tokens(batch, n, width, others, dtype=torch.float64):
    generator = torch.Generator().manual_seed(batch * n)
    sizes = (batch, n, width), (batch, n, others)
    return [torch.randn(size, generator=generator, dtype=dtype) for size in sizes]


def transcription(student, teacher, negatives="keep"):
    """As published (DINOv3), for one image (N, D), pair by pair."""
    s, t = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) for x in (student, teacher))
    total = 0.0
    for i in range(len(s)):
        own, other = s @ s[i], t @ t[i]
        if negatives in ("drop", "drop_teacher"):
            other = torch.where(other < 0, torch.zeros_like(other), other)
        if negatives == "drop":
            own = torch.where(own < 0, torch.zeros_like(own), own)
        total = total + (own - other).square().sum()
    return total / len(s) ** 2


def value_and_gradient(student, teacher, **options):
    student = student.detach().clone().requires_grad_()
    loss = kdops.gram_anchoring_loss(student, teacher, **options)
    return loss.detach(), torch.autograd.grad(loss, student)[0]


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradient_are_the_published_ones(shape, negatives):
    student, teacher = tokens(*shape)
    student.requires_grad_()
    images = zip(student, teacher, strict=True)
    expected = torch.stack([transcription(s, t, negatives) for s, t in images]).mean()
    (gradient,) = torch.autograd.grad(expected, student)
    loss, actual = value_and_gradient(student, teacher, negatives=negatives)
    assert relative_error(loss, expected) < 1e-12
    assert relative_error(actual, gradient) < 1e-11


def test_reference_takes_a_few_rows_at_a_time(monkeypatch):
    student, teacher = tokens(2, 30, 8, 5)
    with kdops.backend("reference"):
        whole = value_and_gradient(student, teacher)
        monkeypatch.setattr("kdops._recompute.CHUNK", 200)
        parts = value_and_gradient(student, teacher)
    assert_close(parts, whole, torch.float64)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_padding_changes_nothing(backend, negatives):
    """Images of 30, 11 and 0 tokens among 40, the padding NaN; also as numbers, not booleans."""
    student, teacher = tokens(3, 40, 6, 9)
    counts = torch.tensor([30, 11, 0])
    mask = torch.arange(40) < counts[:, None]
    expected, gradient = torch.zeros(()).double(), torch.zeros_like(student)
    for i, count in enumerate(counts.tolist()):
        alone = student[i, :count], teacher[i, :count]
        loss, gradient[i, :count] = value_and_gradient(*alone, negatives=negatives)
        expected = expected + loss
    student[~mask], teacher[~mask] = float("nan"), float("nan")
    for form in (mask, mask.long()):
        with kdops.backend(backend):
            loss, actual = value_and_gradient(student, teacher, negatives=negatives, mask=form)
        assert relative_error(loss, expected / 3) < 1e-12
        assert relative_error(actual, gradient / 3) < 1e-11
        assert not actual[~mask].any()


def test_mask_of_another_shape_is_refused():
    student, teacher = tokens(2, 5, 3, 3)
    with pytest.raises(ValueError, match=r"expected mask of shape \[2, 5\], got \[2, 4\]"):
        kdops.gram_anchoring_loss(student, teacher, mask=torch.ones(2, 4))
    with pytest.raises(ValueError, match="negatives to be one of 'keep', 'drop'"):
        kdops.gram_anchoring_loss(student, teacher, negatives="remove")


@pytest.mark.parametrize("negatives", NEGATIVES[:2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equal_tokens_have_no_loss(shape, negatives, dtype):
    student = tokens(*shape, dtype)[0]
    with poisoned_empty():
        loss, gradient = value_and_gradient(student, student.clone(), negatives=negatives)
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("noise", [0.1, 0.03, 0.01, 0.003, 1e-3, 1e-4])
@pytest.mark.parametrize("shape", [(1, 300, 48, 48), (1, 40, 48, 48)], ids=str)
def test_student_and_teacher_that_are_alike_keep_their_digits(shape, noise):
    student, teacher = tokens(*shape, torch.float32)
    teacher = student + noise * teacher
    loss, gradient = value_and_gradient(student, teacher)
    with kdops.backend("reference"):
        exact, expected = value_and_gradient(student.double(), teacher.double())
    assert relative_error(loss, exact) < 1e-5
    assert relative_error(gradient, expected) < 4e-5


@pytest.mark.parametrize("common", [1, 3, 10, 100, 1e4])
@pytest.mark.parametrize("shape", [(1, 300, 48, 40), (1, 40, 48, 48)], ids=str)
def test_tokens_with_a_large_common_part_keep_their_digits(shape, common):
    student, teacher = tokens(*shape, torch.float32)
    student = student + common
    loss, gradient = value_and_gradient(student, teacher)
    with kdops.backend("reference"):
        exact, expected = value_and_gradient(student.double(), teacher.double())
    assert relative_error(loss, exact) < 1e-5
    assert relative_error(gradient, expected) < 4e-5


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zero_tokens_have_zero_gradient(shape, backend):
    student, teacher = tokens(*shape, torch.float32)
    student[0, 3] = 0
    teacher[-1, 4] = 0
    for negatives in NEGATIVES:
        with kdops.backend(backend):
            loss, gradient = value_and_gradient(student, teacher, negatives=negatives)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert not gradient[0, 3].any()
        assert gradient[-1, 4].any()
    student[:] = 0
    loss, gradient = value_and_gradient(student, teacher)
    assert loss.isfinite()
    assert not gradient.any()


@pytest.mark.parametrize("scales", [(1e-30, 1e30), (1e30, 1e30), (1e-38, 1.0)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss_does_not_depend_on_the_scale(shape, scales):
    student, teacher = tokens(*shape)
    student, teacher = (x.float() * f for x, f in zip((student, teacher), scales, strict=True))
    loss, gradient = value_and_gradient(student, teacher)
    exact, expected = value_and_gradient(student.double(), teacher.double())
    assert relative_error(loss, exact) < 1e-5
    if expected.abs().max() < torch.finfo(torch.float32).max:
        assert relative_error(gradient, expected) < 4e-5
    assert not gradient.isnan().any()


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("shape", [(3, 30, 8, 5), (3, 130, 6, 9)], ids=str)
def test_nan_stays_in_its_image(shape, negatives):
    student, teacher = tokens(*shape, torch.float32)
    _, clean = value_and_gradient(student, teacher, negatives=negatives)
    student[1, 7, 2] = float("nan")
    loss, gradient = value_and_gradient(student, teacher, negatives=negatives)
    assert loss.isnan()
    assert torch.equal(gradient[[0, 2]], clean[[0, 2]])
    assert gradient[1].isnan().any()


@pytest.mark.parametrize("shape", [(3, 400, 64, 80), (4, 300, 96, 8)], ids=str)
def test_threads_change_no_bit(shape):
    """Images whose steps are shared among the threads, by features and by tiles."""
    student, teacher = tokens(*shape, torch.float32)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(value_and_gradient(student, teacher))
    torch.set_num_threads(before)
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])


def test_tokens_are_read_where_they_lie():
    """As maps (B, D, N) seen as tokens, and as every second token of a longer sequence."""
    student, teacher = tokens(2, 130, 6, 9)
    expected = value_and_gradient(student, teacher)
    for lay_out in (
        lambda x: x.mT.contiguous().mT,
        lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    ):
        got = value_and_gradient(lay_out(student), lay_out(teacher))
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])
