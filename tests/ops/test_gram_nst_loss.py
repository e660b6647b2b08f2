"""nst_loss beyond the contract: dead channels, scales, isolation, both closed forms."""

import pytest
import torch

import kdops

SHAPES = [(3, 12, 3, 2), (3, 2, 4, 4)]  # channels above and far below positions


def value_and_gradient(student, teacher):
    student = student.clone().requires_grad_()
    loss = kdops.nst_loss(student, teacher)
    return loss.detach(), torch.autograd.grad(loss, student)[0]


@pytest.fixture(params=SHAPES, ids=str)
def maps(request, device):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(request.param, generator=generator).to(device) for _ in range(2)]


def test_dead_channels_have_zero_gradient(maps):
    student, teacher = maps
    student[0, 1] = 0
    student[1] = 0
    teacher[2] = 0
    loss, gradient = value_and_gradient(student, teacher)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert not gradient[0, 1].any()
    assert not gradient[1].any()
    assert gradient[0, 0].any()


KERNELS = [
    {"kernel": "linear"},
    {"kernel": "gaussian"},
    {"kernel": "gaussian", "bandwidth": 0.8},
    {"degree": 1},
    {"degree": 1, "c": 0.5},
    {"degree": 2, "c": 0.5},
    {"degree": 3, "c": 1.0},
    {"degree": 3},
    {"degree": 2},
]


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_dead_channels_have_zero_gradient_under_every_kernel(maps, options, backend):
    """Not where k(0, t) has a slope either; the second derivative neither."""
    student, teacher = (f.double() for f in maps)
    student[0, 1] = 0
    teacher[1, 0] = 0
    student.requires_grad_()
    with kdops.backend(backend):
        loss = kdops.nst_loss(student, teacher, **options)
        (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
        assert not gradient[0, 1].any()
        assert gradient[0, 0].any()
        if gradient.requires_grad:
            (second,) = torch.autograd.grad(gradient.square().sum(), student)
            assert not second[0, 1].any()
            assert second[0, 0].any()
            assert second.isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_loss_does_not_depend_on_the_scale(maps, scale):
    student, teacher = maps
    plain, expected = value_and_gradient(student, teacher)
    loss, gradient = value_and_gradient(scale * student, teacher)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(gradient * scale, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_denormal_channels_have_the_direction_that_they_have(maps, options, backend):
    student, teacher = maps
    exact = kdops.nst_loss((student * 1e-39).double(), teacher.double(), **options)
    with kdops.backend(backend):
        loss = kdops.nst_loss(student * 1e-39, teacher, **options)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-6)


def test_long_rows_are_as_exact_as_short_ones(device):
    """Squares added one by one in float32 were 1e-5 off at 300 x 300 positions."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.rand(1, 3, 300, 300, generator=generator) for _ in range(2))
    exact = kdops.nst_loss(student.double(), teacher.double())
    loss = kdops.nst_loss(student.to(device), teacher.to(device))
    assert abs(loss.item() / exact.item() - 1) < 1e-6


def test_nan_stays_in_its_sample(maps):
    student, teacher = maps
    _, clean = value_and_gradient(student, teacher)
    student[1, 0, 0, 0] = float("nan")
    loss, gradient = value_and_gradient(student, teacher)
    assert loss.isnan()
    assert torch.equal(gradient[[0, 2]], clean[[0, 2]])
    assert gradient[1].isnan().any()


def test_equal_maps_have_no_loss(maps):
    student, _ = maps
    loss, gradient = value_and_gradient(student, student.flip(1))  # the order does not count
    assert loss < 1e-6  # the rounding of the Gram matrices: through channels they cancel
    assert gradient.abs().max() < 1e-5


def test_maps_are_read_where_they_lie(maps):
    expected = value_and_gradient(*maps)
    for lay_out in (
        lambda f: f.to(memory_format=torch.channels_last),
        lambda f: torch.nn.functional.pad(f, (1, 0, 0, 2))[..., : f.shape[-2], 1:],
    ):
        got = value_and_gradient(*map(lay_out, maps))
        torch.testing.assert_close(got, expected)
