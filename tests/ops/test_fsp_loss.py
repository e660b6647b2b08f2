"""fsp_loss beyond the contract."""

import torch

import kdops


def test_a_square_is_not_negative(device):
    """Through positions the terms cancel: F1 doubled and F2 halved have the same FSP matrix."""
    generator = torch.Generator().manual_seed(0)
    f1, f2 = (torch.randn(1, 48, 2, 2, generator=generator).to(device) for _ in range(2))
    for scale in (3.0, 5.0, 7.0, 11.0, 13.0, 17.0):
        student = (scale * f1).requires_grad_(), f2 / scale
        loss = kdops.fsp_loss(student, (f1, f2))
        assert 0 <= loss < 1e-3 * scale**2
        assert torch.isfinite(torch.autograd.grad(loss, student[0])[0]).all()
