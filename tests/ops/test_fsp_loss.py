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


@pytest.mark.parametrize("columns", [False, True])
def test_the_op_without_second_maps_pulls_from_both_sides(device, columns):
    """D is symmetric there; D_ij / |D_j| is not."""
    x, y = (torch.randn(2, 7, 5, dtype=torch.float64, device=device) for _ in range(2))
    variant = reference.COLUMNS if columns else reference.MSE
    _, pull, none = torch.ops.kdops.gram_loss(x, None, y, None, variant, False, True)
    expected = gradient.gram_loss_gradients(x, None, y, None, variant)[0]
    assert relative_error(pull, expected) < 1e-13
    assert none.numel() == 0
