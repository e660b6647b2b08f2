"""RKD and SimilarityPreserving against loops over pairs and triples."""

import pytest
import torch
from support.distiller_cases import leaf, same_loss_and_gradient

import kdops.distillers as kd


def huber(x):
    return torch.where(x.abs() < 1, 0.5 * x**2, x.abs() - 0.5)


def distances(x):
    n = x.shape[0]
    d = {(i, j): ((x[i] - x[j]) ** 2).sum().sqrt() for i in range(n) for j in range(n) if i != j}
    mu = sum(d.values()) / len(d)
    return {key: value / mu for key, value in d.items()}


def angles(x):
    n = x.shape[0]
    e = {}
    for i in range(n):
        for j in range(n):
            if i != j:
                e[i, j] = (x[j] - x[i]) / ((x[j] - x[i]) ** 2).sum().sqrt()
    return {
        (i, j, k): (e[i, j] * e[i, k]).sum()
        for i in range(n)
        for j in range(n)
        for k in range(n)
        if i not in (j, k)
    }


def rkd(s, t, normalize):
    if normalize:
        s, t = (x / x.norm(dim=1, keepdim=True) for x in (s, t))
    n, (d_s, d_t), (a_s, a_t) = s.shape[0], map(distances, (s, t)), map(angles, (s, t))
    distance = sum(huber(d_s[key] - d_t[key]) for key in d_s) / n**2
    angle = sum(huber(a_s[key] - a_t[key]) for key in a_s) / n**3
    return distance, angle


@pytest.mark.parametrize("normalize", [False, True])
def test_rkd(normalize):
    s, t = [leaf(5, 3, 2), leaf(5, 4, seed=1)], [leaf(5, 7, seed=2), leaf(5, 9, seed=3)]
    method = kd.RKD(normalize=normalize, weights=[1.0, 0.5], layout="tokens")
    theirs = 0.0
    for w, a, b in zip((1.0, 0.5), s, t, strict=True):
        distance, angle = rkd(a.flatten(1), b.detach(), normalize)
        theirs = theirs + w * (25 * distance + 50 * angle)
    same_loss_and_gradient(method(s, t), theirs, s, tol=1e-8)
    distance, angle = rkd(s[1], t[1].detach(), normalize)
    same_loss_and_gradient(
        kd.RKD(2, 0, normalize=normalize)(s[1], t[1]), 2 * distance, [s[1]], 1e-8
    )
    same_loss_and_gradient(kd.RKD(0, 3, normalize=normalize)(s[1], t[1]), 3 * angle, [s[1]], 1e-8)


def test_similarity_preserving():
    s, t = [leaf(5, 3, 2, 2), leaf(5, 4, 3, 1, seed=1)], [leaf(5, 7, seed=2), leaf(5, 9, seed=3)]
    theirs = 0.0
    for a, b in zip(s, t, strict=True):
        rows = []
        for x in (a.flatten(1), b.detach()):
            g = torch.stack(
                [torch.stack([(x[i] * x[j]).sum() for j in range(5)]) for i in range(5)]
            )
            rows.append(torch.stack([row / (row**2).sum().sqrt() for row in g]))
        theirs = theirs + 3000 * ((rows[0] - rows[1]) ** 2).sum() / 25
    same_loss_and_gradient(kd.SimilarityPreserving()(s, t), theirs, s, tol=1e-8)


@pytest.mark.parametrize("method", [kd.RKD(), kd.RKD(normalize=True)])
def test_rkd_invariances(method):
    s, t = leaf(6, 4), leaf(6, 5, seed=1)
    loss = method(s, t)
    q, _ = torch.linalg.qr(leaf(4, 4, seed=2))
    torch.testing.assert_close(method(3.0 * s @ q, t), loss)
    order = torch.randperm(6)
    torch.testing.assert_close(method(s[order], t[order]), loss)
    if not method.normalize:
        torch.testing.assert_close(method(s + 7.0, t), loss)
    assert method(s, 2 * s.detach()) < 1e-12


def test_repeated_rows_have_the_gradient_of_the_others():
    s, t = leaf(8, 4), leaf(8, 5, seed=1)
    usual = torch.autograd.grad(kd.RKD()(s, t), s)[0].norm()
    doubled = s.detach()[[0, 0, 1, 1, 2, 3, 4, 5]].requires_grad_()
    gradient = torch.autograd.grad(kd.RKD()(doubled, t), doubled)[0]
    assert gradient.norm() < 10 * usual
