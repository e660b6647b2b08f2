"""cka_loss beyond the contract: padding, rows without variance, offsets, both ways of computing."""

import pytest
import torch

import kdops
from kdops.testing import relative_error

SHAPES = [(9, 20, 13), (60, 7, 5)]  # by rows; by columns
LARGE = [(200, 420, 100), (700, 100, 130)]  # the same, of several blocks


def rows(n, width, others, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(n, d, generator=generator, dtype=dtype) for d in (width, others)]


def transcription(student, teacher, centered=True):
    """HSIC by the centring matrix H, entry by entry."""
    n = len(student)
    h = torch.eye(n, dtype=torch.float64) - (1 / n if centered else 0.0)
    k, l = (h @ (x @ x.T) @ h for x in (student, teacher))
    return 1 - torch.trace(k @ l) / (torch.trace(k @ k).sqrt() * torch.trace(l @ l).sqrt())


def value_and_gradient(student, teacher, **options):
    student = student.detach().clone().requires_grad_()
    loss = kdops.cka_loss(student, teacher, **options)
    return loss.detach(), torch.autograd.grad(loss, student)[0]


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE], ids=str)
def test_value_and_gradient_are_those_of_hsic(shape, centered):
    student, teacher = rows(*shape)
    student.requires_grad_()
    expected = transcription(student, teacher, centered)
    (gradient,) = torch.autograd.grad(expected, student)
    loss, actual = value_and_gradient(student, teacher, centered=centered)
    assert relative_error(loss, expected) < 1e-12
    assert relative_error(actual, gradient) < 1e-11


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE], ids=str)
def test_padding_changes_nothing(shape, centered):
    student, teacher = rows(*shape)
    count = shape[0] - 3
    places = torch.randperm(shape[0], generator=torch.Generator().manual_seed(0))[:count].sort()[0]
    mask = torch.zeros(shape[0], dtype=torch.long).index_fill(0, places, 1)
    loss, gradient = value_and_gradient(student[places], teacher[places], centered=centered)
    student[mask == 0], teacher[mask == 0] = float("nan"), float("nan")
    padded, actual = value_and_gradient(student, teacher, centered=centered, mask=mask)
    assert relative_error(padded, loss) < 1e-12
    assert relative_error(actual[places], gradient) < 1e-11
    assert not actual[mask == 0].any()
    with pytest.raises(ValueError, match="cka_loss: expected mask of shape"):
        kdops.cka_loss(student, teacher, mask=mask[:-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_without_variance_have_loss_one_and_no_gradient(shape, dtype):
    student, teacher = rows(*shape, dtype)
    constant = torch.full_like(student, 0.1) * torch.arange(1, shape[1] + 1)
    for s, t in ((constant, teacher), (student, teacher * 0 + 0.3), (constant, teacher * 0)):
        loss, gradient = value_and_gradient(s, t)
        assert loss == 1
        assert not gradient.any()
    loss, gradient = value_and_gradient(student * 0, teacher, centered=False)
    assert loss == 1
    assert not gradient.any()


@pytest.mark.parametrize("shape", [(20, 40, 40), (90, 8, 8)], ids=str)
def test_equal_rows_have_no_loss(shape):
    """Turned and scaled ones neither."""
    student = rows(*shape)[0]
    turn = torch.linalg.qr(torch.randn(shape[1], shape[1], dtype=torch.float64))[0]
    loss, gradient = value_and_gradient(student, 3 * student @ turn + 5)
    assert loss.abs() < 1e-14
    assert gradient.abs().max() < 1e-14


@pytest.mark.parametrize(("scale", "offset"), [(1e30, 0), (1e-30, 0), (1.0, 1e4), (1e-3, 10.0)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scales_and_offsets_cost_no_digits(shape, scale, offset):
    student, teacher = rows(*shape)
    student, teacher = (scale * student + offset).float(), teacher.float()
    loss, gradient = value_and_gradient(student, teacher)
    exact, expected = value_and_gradient(student.double(), teacher.double())
    assert relative_error(loss, exact) < 1e-5
    assert relative_error(gradient, expected) < 4e-5


def test_nan_stays_in_its_matrix():
    student, teacher = (torch.randn(3, 9, d) for d in (4, 5))
    clean = value_and_gradient(student, teacher)[1]
    student[1, 2, 0] = float("nan")
    loss, gradient = value_and_gradient(student, teacher)
    assert loss.isnan()
    assert torch.equal(gradient[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_are_read_where_they_lie(shape):
    student, teacher = rows(*shape)
    expected = value_and_gradient(student, teacher)
    loss, gradient = value_and_gradient(student.mT.contiguous().mT, teacher.mT.contiguous().mT)
    assert torch.equal(loss, expected[0])
    assert torch.equal(gradient, expected[1])


@pytest.mark.parametrize("shape", [*SHAPES, *LARGE], ids=str)
def test_single_precision_has_its_digits(shape):
    """By columns the difference from 1 is what products of features leave, hence in double."""
    student, teacher = rows(*shape)
    teacher = torch.cat([student, 0.3 * teacher], 1)
    exact, expected = value_and_gradient(student, teacher)
    loss, gradient = value_and_gradient(student.float(), teacher.float())
    assert relative_error(loss, exact) < 1e-4
    assert relative_error(gradient, expected) < 1e-4


@pytest.mark.parametrize("others", [0.5, 0.7, 0.9, 1.2, 2.0])
@pytest.mark.parametrize("shape", [SHAPES[1], LARGE[1], (4096, 64, 128)], ids=str)
def test_single_precision_by_columns_on_either_side_of_alike(shape, others):
    """Where the loss is below 1/4 the products are taken again in double."""
    student, teacher = rows(*shape)
    teacher = torch.cat([student, others * teacher], 1)
    exact, expected = value_and_gradient(student, teacher)
    loss, gradient = value_and_gradient(student.float(), teacher.float())
    assert 0.01 < exact < 0.9
    assert relative_error(loss, exact) < 1e-6
    assert relative_error(gradient, expected) < 1e-5


@pytest.mark.parametrize("shape", [(33, 64, 200), (150, 20, 12), *LARGE], ids=str)
def test_threads_change_no_bit(shape):
    student, teacher = rows(*shape, torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 4, 7):
            torch.set_num_threads(count)
            results.append(value_and_gradient(student, teacher))
    finally:
        torch.set_num_threads(threads)
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])
