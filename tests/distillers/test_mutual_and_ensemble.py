"""DeepMutual with three networks and OnTheFlyEnsemble, against transcriptions."""

import math

import pytest
import torch
import torch.nn.functional as F
from support.distiller_cases import leaf, randomise_, same_loss_and_gradient

import kdops.distillers as kd


def kl(p, q):
    return (p * (p / q).log()).sum() / p.shape[0]


def test_deep_mutual_with_three_nets():
    nets, y = [leaf(5, 4, seed=i) for i in range(3)], torch.tensor([0, 1, 2, 3, 3])
    p = [torch.exp(z) / torch.exp(z).sum(1, keepdim=True) for z in nets]
    losses = []
    for i in range(3):
        ce = -p[i][torch.arange(5), y].log().mean()
        others = [kl(p[j].detach(), p[i]) for j in range(3) if j != i]
        losses.append(ce + 0.5 * sum(others) / 2)
    method = kd.DeepMutual(weight=0.5)
    same_loss_and_gradient(method(nets, y), sum(losses), nets)
    for i, (ours, theirs) in enumerate(zip(method.per_net(nets, y), losses, strict=True)):
        same_loss_and_gradient(ours, theirs, [nets[i]])
    own = torch.autograd.grad(losses[1], nets[1], retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(method(nets, y), nets[1])[0], own)


def test_deep_mutual_needs_two():
    with pytest.raises(ValueError, match="two or more networks"):
        kd.DeepMutual()([torch.zeros(2, 3)])
    with pytest.raises(ValueError, match=r"\[2, 3\] and \[2, 4\]"):
        kd.DeepMutual()([torch.zeros(2, 3), torch.zeros(2, 4)])


@pytest.mark.parametrize("epoch", [0, 40, 200])
def test_on_the_fly_ensemble(epoch):
    method = kd.OnTheFlyEnsemble(6, 3, weight=0.8).double()
    randomise_(method)
    logits, trunk = [leaf(5, 4, seed=i) for i in range(3)], leaf(5, 6, 2, 3, seed=7)
    y = torch.tensor([0, 1, 2, 3, 0])
    linear, norm, _ = method.gate
    h = trunk.mean((2, 3)) @ linear.weight.T + linear.bias
    h = (h - h.mean(0)) / torch.sqrt(h.var(0, unbiased=False) + norm.eps)
    h = torch.relu(h * norm.weight + norm.bias)
    g = h.exp() / h.exp().sum(1, keepdim=True)
    z_e = sum(g[:, i : i + 1] * logits[i] for i in range(3))
    ramp = math.exp(-5 * (1 - epoch / 80) ** 2) if epoch < 80 else 1.0
    p_e = F.softmax(z_e.detach() / 3, 1)
    theirs = F.cross_entropy(z_e, y)
    for z in logits:
        soft = kl(p_e, F.softmax(z / 3, 1))
        theirs = theirs + F.cross_entropy(z, y) + 0.8 * ramp * 9 * soft
    ours = method(logits, trunk, y, epoch)
    # The bias of the gate's Linear layer has no gradient: BatchNorm takes it out.
    same_loss_and_gradient(ours, theirs, [*logits, trunk, linear.weight, *norm.parameters()])


def test_ensemble_messages():
    with pytest.raises(ValueError, match="2 logits for 3 branches"):
        kd.OnTheFlyEnsemble(6)([torch.zeros(2, 4)] * 2, torch.zeros(2, 6))
    with pytest.raises(ValueError, match=r"reads 6 features, the trunk is \[2, 5\]"):
        kd.OnTheFlyEnsemble(6)([torch.zeros(2, 4)] * 3, torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"^OnTheFlyEnsemble: takes no mask: .*pool the valid"):
        kd.OnTheFlyEnsemble(6)([torch.zeros(2, 4)] * 3, torch.zeros(2, 6), mask=torch.ones(2, 5))
