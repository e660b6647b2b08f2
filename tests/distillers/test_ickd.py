"""ICKD and KTA against loops over channels, through matrices of channels and of positions."""

import pytest
import torch
from support.distiller_cases import leaf, same_loss_and_gradient

import kdops.distillers as kd


def ickd(s, t):
    """Samples (B, C, L): rows of F Fᵀ as unit vectors, entry by entry."""
    batch, channels, _ = s.shape
    total = 0.0
    for f, g in zip(s, t, strict=True):
        for i in range(channels):
            rows = []
            for x in (f, g):
                row = torch.stack([(x[i] * x[j]).sum() for j in range(channels)])
                rows.append(row / (row**2).sum().sqrt() if x[i].any() else torch.zeros_like(row))
            total = total + ((rows[0] - rows[1]) ** 2).sum()
    return total / (channels * batch**2)


def kta(s, t):
    """The L x L matrices of every channel."""
    batch, channels, length = s.shape
    total = 0.0
    for f, g in zip(s, t, strict=True):
        for i in range(channels):
            a, b = f[i] / (f[i] ** 2).sum().sqrt(), g[i] / (g[i] ** 2).sum().sqrt()
            total = total + ((torch.outer(a, a) - torch.outer(b, b)) ** 2).sum().sqrt()
    return total / length / batch


METHODS = {kd.ICKD: ickd, kd.KTA: kta}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("shape", [(2, 7, 2, 2), (3, 3, 4, 2)], ids=str)
def test_value_and_gradient(method, shape):
    s, t = leaf(*shape), leaf(*shape, seed=1)
    theirs = METHODS[method](s.flatten(2), t.detach().flatten(2))
    same_loss_and_gradient(method()(s, t), theirs, [s])
    tokens = [x.detach().flatten(2).mT.contiguous().requires_grad_() for x in (s, t)]
    theirs = METHODS[method](tokens[0].mT, tokens[1].detach().mT)
    same_loss_and_gradient(method(layout="tokens")(*tokens), theirs, tokens[:1])


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("shape", [(2, 9, 2, 2), (2, 4, 4, 2)], ids=str)
@pytest.mark.parametrize("noise", [0.0, 1e-2, 1e-3])
def test_student_and_teacher_that_are_alike_keep_their_digits(method, shape, noise):
    s = leaf(*shape).detach()
    t = s + noise * leaf(*shape, seed=1).detach()
    s, t = s.float().requires_grad_(), t.float()
    loss, exact = method()(s, t), method()(s.double(), t.double())
    assert abs(loss - exact) <= 1e-4 * exact + 1e-30
    (gradient,) = torch.autograd.grad(loss, s)
    assert gradient.isfinite().all()
    if noise == 0.0:
        assert loss == 0
        assert not gradient.any()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("shape", [(2, 7, 2, 2), (3, 3, 4, 2)], ids=str)
def test_dead_channels(method, shape):
    """They have the matrix of zeros and no gradient, or a row of zeros that passes none."""
    s, t = leaf(*shape).detach(), leaf(*shape, seed=1).detach()
    s[0, 1], t[1, 2], s[1, 2], t[0, 2] = 0, 0, 0, 0
    s.requires_grad_()
    loss = method()(s, t)
    (gradient,) = torch.autograd.grad(loss, s, retain_graph=True)
    assert gradient.isfinite().all()
    if method is kd.ICKD:
        same_loss_and_gradient(loss, ickd(s.flatten(2), t.flatten(2)), [s])
    else:
        assert not gradient[0, 1].any()
        assert not gradient[1, 2].any()
        # |s sᵀ| of a unit vector is one; where both are dead there is nothing
        places = [(b, c) for b in range(shape[0]) for c in range(shape[1])]
        rest = 0.0
        for b, c in set(places) - {(0, 1), (1, 2), (0, 2)}:
            rest += kta(*(x.detach().flatten(2)[b, c][None, None] for x in (s, t)))
        length = shape[2] * shape[3]
        torch.testing.assert_close(loss, (rest + 2 / length) / shape[0])


def test_ickd_connects_channels():
    s, t = leaf(2, 3, 2, 2), leaf(2, 5, 2, 2, seed=1)
    method = kd.ICKD.from_sample(s, t)
    theirs = ickd(method.connectors[0](s).flatten(2), t.detach().flatten(2))
    same_loss_and_gradient(method(s, t), theirs, [s, *method.connectors.parameters()])
    with pytest.raises(ValueError, match="ICKD: level 0: the student has 3 channels"):
        kd.ICKD()(s, t)
