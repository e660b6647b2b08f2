"""attention_loss beyond the contract: degenerate maps, isolation, layouts, cost of a call."""

import pytest
import torch

import kdops

OPTIONS = [
    {"p": p, "reduce": reduce, "variant": variant}
    for p in (1, 2, 2.5)
    for reduce in ("sum", "max")
    for variant in ("code", "paper")
]


def value_and_gradient(student, teacher, **options):
    student = student.clone().requires_grad_()
    loss = kdops.attention_loss(student, teacher, **options)
    return loss.detach(), torch.autograd.grad(loss, student)[0]


@pytest.fixture
def maps(device):
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 6, 5, 3), (4, 9, 5, 3)]
    return [torch.randn(s, generator=generator).to(device) for s in shapes]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_zero_maps_have_zero_gradient(maps, options):
    student, teacher = maps
    student[1] = 0
    teacher[2] = 0
    student[3] = teacher[3] = 0
    loss, gradient = value_and_gradient(student, teacher, **options)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert not gradient[1].any()
    assert not gradient[3].any()
    assert gradient[0].any()


@pytest.mark.parametrize("scale", [1e-30, 1e-14, 1e17])
def test_loss_does_not_depend_on_the_scale(maps, scale):
    student, teacher = maps
    plain, _ = value_and_gradient(student, teacher)
    scaled, gradient = value_and_gradient(scale * student, teacher)
    assert torch.isfinite(gradient).all()
    if scale > 1e-20:  # else x^2 vanishes in float32 and the map counts as zero
        torch.testing.assert_close(scaled, plain)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_nan_stays_in_its_sample(maps, options):
    student, teacher = maps
    _, clean = value_and_gradient(student, teacher, **options)
    student[2, 0, 0, 0] = float("nan")
    loss, gradient = value_and_gradient(student, teacher, **options)
    assert loss.isnan()
    others = [0, 1, 3]
    assert torch.equal(gradient[others], clean[others])
    assert gradient[2].isnan().any()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_channels_last_gives_the_same(maps, options):
    student, teacher = maps
    loss, gradient = value_and_gradient(student, teacher, **options)
    last = {"memory_format": torch.channels_last}
    loss_last, gradient_last = value_and_gradient(student.to(**last), teacher.to(**last), **options)
    torch.testing.assert_close(loss_last, loss)
    torch.testing.assert_close(gradient_last, gradient)
