"""CKA, Procrustes and Subspace against torch.linalg in float64."""

import pytest
import torch
from support.distiller_cases import leaf, same_loss_and_gradient

import kdops.distillers as kd


def centred(x):
    h = torch.eye(len(x), dtype=torch.float64) - 1 / len(x)
    return h @ x.flatten(1)


def cka(s, t):
    k, m = (x @ x.T for x in (s, t))
    return (k * m).sum() / (k.norm() * m.norm())


def procrustes(s, t):
    a, b = (centred(x) / centred(x).norm() for x in (s, t))
    return 2 - 2 * torch.linalg.svdvals(a.T @ b).sum()


def subspace(s, t, k):
    total = 0.0
    for f, g in zip(s, t, strict=True):
        u, v = (torch.linalg.svd(x, full_matrices=False)[0][:, :k] for x in (f, g))
        total = total + (k - (u.T @ v).square().sum()) / k
    return total / len(s)


LEVELS = [
    ((6, 3, 2), (6, 7)),  # more samples than features
    ((4, 9), (4, 5, 3)),  # fewer
    ((5, 3), (5, 20)),
]


@pytest.mark.parametrize("shapes", LEVELS, ids=str)
def test_cka(shapes):
    s, t = leaf(*shapes[0]), leaf(*shapes[1], seed=1)
    theirs = 1 - cka(centred(s), centred(t.detach()))
    same_loss_and_gradient(kd.CKA(layout="tokens")(s, t), theirs, [s])
    theirs = -cka(s.flatten(1), t.detach().flatten(1))
    method = kd.CKA(centred=False, negative=True, layout="tokens")
    same_loss_and_gradient(method(s, t), theirs, [s])


@pytest.mark.parametrize("shapes", LEVELS, ids=str)
def test_procrustes(shapes):
    s, t = leaf(*shapes[0]), leaf(*shapes[1], seed=1)
    same_loss_and_gradient(
        kd.Procrustes(layout="tokens")(s, t), procrustes(s, t.detach()), [s], tol=1e-8
    )


@pytest.mark.parametrize("method", [kd.CKA(), kd.Procrustes()], ids=lambda m: m.name)
@pytest.mark.parametrize("shape", [(8, 5), (5, 30)], ids=str)
def test_rotated_scaled_and_shifted_features_are_equal(method, shape):
    s = leaf(*shape)
    q = torch.linalg.qr(leaf(shape[1], shape[1], seed=2).detach())[0]
    loss = method(s, 3 * s @ q + 2)
    assert loss.abs() < 1e-13
    assert torch.autograd.grad(loss, s)[0].abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(2, 9, 3, 3), (3, 5, 4, 2)], ids=str)
def test_subspace(shape):
    s, t = leaf(*shape), leaf(*shape, seed=1)
    theirs = subspace(s.flatten(2), t.detach().flatten(2), 2)
    same_loss_and_gradient(kd.Subspace(k=2)(s, t), theirs, [s], tol=1e-8)
    tokens = [x.detach().flatten(2).mT.contiguous().requires_grad_() for x in (s, t)]
    theirs = subspace(tokens[0].mT, tokens[1].detach().mT, 2)
    ours = kd.Subspace(k=2, layout="tokens")(*tokens)
    same_loss_and_gradient(ours, theirs, tokens[:1], tol=1e-8)


def test_subspace_of_few_tokens():
    """Two tokens have two directions; none have none; sizes of the maps may differ."""
    s, t = leaf(3, 6, 5), leaf(3, 6, 5, seed=1)
    mask = torch.arange(6) < torch.tensor([[6], [2], [0]])
    loss = kd.Subspace(k=3, layout="tokens")(s, t, mask=mask)
    images = [
        subspace(s[:1].mT, t[:1].detach().mT, 3),
        subspace(s[1:2, :2].mT, t[1:2, :2].detach().mT, 2),
    ]
    same_loss_and_gradient(loss, sum(images) / 3, [s], tol=1e-8)
    other = leaf(3, 5, 2, 5, seed=2)
    assert kd.Subspace()(leaf(3, 5, 4, 4), other).isfinite()
    with pytest.raises(ValueError, match=r"Subspace: level 0: k=4 singular vectors.*lower k"):
        kd.Subspace()(leaf(3, 3, 4, 4), leaf(3, 3, 4, 4))
    with pytest.raises(ValueError, match="Subspace: k >= 1"):
        kd.Subspace(k=0)
