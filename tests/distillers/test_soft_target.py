"""SoftTarget, TeacherAssistant, BornAgain and LearningWithoutForgetting against loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from support.distiller_cases import leaf, same_loss_and_gradient

import kdops.distillers as kd


def softened(z, temperature):
    e = torch.exp(z / temperature)
    return e / e.sum(1, keepdim=True)


def divergence(z_s, z_t, temperature):
    p_s, p_t = softened(z_s, temperature), softened(z_t, temperature)
    total = 0.0
    for b in range(z_s.shape[0]):
        for c in range(z_s.shape[1]):
            total = total + p_t[b, c] * torch.log(p_t[b, c] / p_s[b, c])
    return total / z_s.shape[0]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_target(temperature):
    z_s, z_t = leaf(5, 7), leaf(5, 7, seed=1)
    theirs = temperature**2 * divergence(z_s, z_t.detach(), temperature)
    same_loss_and_gradient(kd.SoftTarget(temperature)(z_s, z_t), theirs, [z_s])
    mean = kd.SoftTarget(temperature, variant="mean")(z_s, z_t)
    same_loss_and_gradient(mean, theirs / 7, [z_s])


def test_objectives_with_a_target():
    z_s, z_t, y = leaf(5, 7), leaf(5, 7, seed=1), torch.tensor([0, 3, 6, 2, 2])
    p = softened(z_s, 1.0)
    ce = -sum(torch.log(p[b, y[b]]) for b in range(5)) / 5
    kl = 16 * divergence(z_s, z_t.detach(), 4.0)
    same_loss_and_gradient(kd.SoftTarget()(z_s, z_t, y), 0.9 * kl + 0.1 * ce, [z_s])
    assistant = kd.TeacherAssistant(lam=0.3)
    same_loss_and_gradient(assistant(z_s, z_t, y), 0.3 * kl + 0.7 * ce, [z_s])
    same_loss_and_gradient(kd.BornAgain()(z_s, z_t, y), kl + ce, [z_s])


def test_born_again_ensemble():
    logits = [leaf(3, 4, seed=i).detach() for i in range(3)]
    torch.testing.assert_close(kd.BornAgain.ensemble(logits), sum(logits) / 3)


def test_extreme_logits_stay_finite():
    z_s = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    loss = kd.SoftTarget()(z_s, z_s.detach().flip(1))
    loss.backward()
    assert math.isfinite(loss.detach())
    assert torch.isfinite(z_s.grad).all()


def test_dense_logits():
    z_s, z_t = leaf(2, 5, 3, 4), leaf(2, 5, 3, 4, seed=1)
    rows_s, rows_t = (z.permute(0, 2, 3, 1).reshape(-1, 5) for z in (z_s, z_t))
    torch.testing.assert_close(kd.SoftTarget()(z_s, z_t), kd.SoftTarget()(rows_s, rows_t))


def test_without_forgetting():
    heads_s, heads_t = [leaf(4, 3), leaf(4, 5, seed=1)], [leaf(4, 3, seed=2), leaf(4, 5, seed=3)]
    new, y = leaf(4, 6, seed=4), torch.tensor([5, 0, 1, 1])
    theirs = 0.0
    for s, t in zip(heads_s, heads_t, strict=True):
        p_s, p_t = softened(s, 1.0) ** 0.5, softened(t.detach(), 1.0) ** 0.5
        p_s, p_t = p_s / p_s.sum(1, keepdim=True), p_t / p_t.sum(1, keepdim=True)
        theirs = theirs - (p_t * p_s.log()).sum() / 4
    theirs = 0.7 * theirs + F.cross_entropy(new, y)
    ours = kd.LearningWithoutForgetting(weight=0.7)(heads_s, heads_t, new, y)
    same_loss_and_gradient(ours, theirs, [*heads_s, new])


def test_messages():
    with pytest.raises(ValueError, match=r"SoftTarget: logits.*\[2, 3\] and \[2, 4\]"):
        kd.SoftTarget()(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="temperature must be positive"):
        kd.SoftTarget(0.0)
    with pytest.raises(ValueError, match="variant"):
        kd.SoftTarget(variant="sum")
