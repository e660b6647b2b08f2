"""fsp_loss beyond the contract."""

import pytest
import torch

import kdops
from kdops.ops.gram import gradient, reference
from kdops.testing import relative_error


def test_a_square_is_not_negative(device):
    """Through positions the terms cancel: F1 doubled and F2 halved have the same FSP matrix."""
    generator = torch.Generator().manual_seed(0)
    f1, f2 = (torch.randn(1, 48, 2, 2, generator=generator).to(device) for _ in range(2))
    for scale in (3.0, 5.0, 7.0, 11.0, 13.0, 17.0):
        student = (scale * f1).requires_grad_(), f2 / scale
        loss = kdops.fsp_loss(student, (f1, f2))
        assert 0 <= loss < 1e-3 * scale**2
        assert torch.isfinite(torch.autograd.grad(loss, student[0])[0]).all()


@pytest.mark.parametrize("variant", ["paper", "columns"])
@pytest.mark.parametrize("without", [0, 1])
def test_the_gradient_beside_maps_without_channels_is_zero(device, without, variant):
    """It was left unwritten: memory that others had used."""
    channels = [40, 40]
    channels[without] = 0
    student = [torch.randn(2, c, 3, 3, device=device, requires_grad=True) for c in channels]
    used = [torch.ones(2, 40, 3, 3, device=device) for _ in range(100)]
    del used
    loss = kdops.fsp_loss(tuple(student), tuple(s.detach() for s in student), variant=variant)
    assert loss == 0
    gradients = torch.autograd.grad(loss, student)
    assert [g.shape[1] for g in gradients] == channels
    assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("variant", ["paper", "mse", "columns"])
@pytest.mark.parametrize("channels", [4, 60])  # through channels, and through positions
def test_sides_of_very_different_scales(device, channels, variant, backend):
    """Products of one side alone leave float32; the matrix of both does not."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, channels, 2, 3, generator=generator).to(device) for _ in range(4)]
    with kdops.backend(backend):
        for scale in (2.0**-66, 2.0**66):
            x = [
                (m * s).requires_grad_() for m, s in zip(maps[:2], (scale, 1 / scale), strict=True)
            ]
            y = [m * s for m, s in zip(maps[2:], (scale, 1 / scale), strict=True)]
            loss = kdops.fsp_loss(tuple(x), tuple(y), variant=variant)
            pulls = torch.autograd.grad(loss, x)
            plain = [m.double().requires_grad_() for m in maps[:2]]
            others = tuple(m.double() for m in maps[2:])
            exact = kdops.fsp_loss(tuple(plain), others, variant=variant)
            slopes = torch.autograd.grad(exact, plain)
            assert relative_error(loss, exact) < 1e-5
            assert relative_error(pulls[0] * scale, slopes[0]) < 1e-5
            assert relative_error(pulls[1] / scale, slopes[1]) < 1e-5


def test_squares_beyond_the_range_of_float32(device):
    """Entries of D whose squares overflow; their mean over a large matrix does not."""
    f1, f2 = torch.full((1, 200, 1, 1), 1e10), torch.full((1, 200, 1, 1), 2e9)
    f1[0, 1:], f2[0, 1:] = 0, 0
    pair = tuple(f.to(device) for f in (f1, f2))
    zeros = tuple(torch.zeros_like(f) for f in pair)
    exact = 4e38 / 200**2
    for backend in ("native",):
        with kdops.backend(backend):
            loss = kdops.fsp_loss(pair, zeros, variant="mse")
        assert abs(loss.item() / exact - 1) < 1e-6


@pytest.mark.parametrize("variant", ["paper", "columns"])
def test_long_maps_and_tall_matrices_are_as_exact_as_small_ones(device, variant):
    generator = torch.Generator().manual_seed(0)
    for shape in ((1, 2, 300, 300), (1, 1500, 2, 2)):
        s, t = (torch.rand(shape, generator=generator).to(device) for _ in range(2))
        exact = kdops.fsp_loss(
            (s.double(), s.double()), (t.double(), 0.5 * t.double()), variant=variant
        )
        loss = kdops.fsp_loss((s, s), (t, 0.5 * t), variant=variant)
        assert abs(loss.item() / exact.item() - 1) < 2e-6


@pytest.mark.parametrize("columns", [False, True])
def test_the_op_without_second_maps_pulls_from_both_sides(device, columns):
    """D is symmetric there; D_ij / |D_j| is not."""
    x, y = (torch.randn(2, 7, 5, dtype=torch.float64, device=device) for _ in range(2))
    variant = reference.COLUMNS if columns else reference.MSE
    _, pull, none = torch.ops.kdops.gram_loss(x, None, y, None, variant, False, True)
    expected = gradient.gram_loss_gradients(x, None, y, None, variant)[0]
    assert relative_error(pull, expected) < 1e-13
    assert none.numel() == 0
