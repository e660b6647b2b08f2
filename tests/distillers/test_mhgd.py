"""MHGD against a transcription, its preparatory phase, and its frozen heads."""

import pytest
import torch
from support.distiller_cases import leaf, randomise_, same_loss_and_gradient
from support.graph_methods import divergence, logits, normalised, sample, vectors

import kdops.distillers as kd


def prepared(s, t, **options):
    method = kd.MHGD.from_sample(s, t, **options)
    randomise_(method)
    method.prepare([t], epochs=2)
    for head in method.heads:
        for norm in (head.theta[1], head.phi[1]):
            norm.running_mean.add_(0.1)
            norm.running_var.mul_(0.3)
    return method


@pytest.mark.parametrize("tanh", [True, False])
def test_transfer(tanh):
    s, t = sample(batch=4)
    method = prepared(s, t, heads=3, tanh=tanh)
    found = [[vectors(x[b], y[b], 1, False) for b in range(4)] for x, y in zip(s, t, strict=True)]
    v_s = [torch.stack([v[0][:, 0] for v in level]) for level in found]
    v_t = [torch.stack([v[1][:, 0] for v in level]) for level in found]
    theirs = 0.0
    for i, head in enumerate(method.heads):
        a, b = logits(head, v_s[i], v_s[i + 1], 3), logits(head, v_t[i], v_t[i + 1], 3)
        theirs = theirs + (divergence(a.tanh(), b.tanh()) if tanh else divergence(a, b))
    same_loss_and_gradient(method(s, t), theirs.detach() * 0 + theirs, s, tol=1e-7)


def test_estimator_loss():
    """The head's loss on the teacher, with a seeded noise to know which heads were dropped."""
    head = kd.MHGD([4, 6], [4, 6], heads=3).heads[0].double().eval()
    front, back = leaf(5, 4), leaf(5, 6, seed=1)
    torch.manual_seed(7)
    ours = head.teacher_loss(front, back, 5e-4)
    torch.manual_seed(7)
    noise = torch.randn(3, 5, 1)
    a = logits(head, front, back, 3)
    g = a.exp() / a.exp().sum(-1, keepdim=True)
    g = g * (noise > noise.mean(0, keepdim=True))
    x = torch.relu(normalised(head.value, front))
    mixed = torch.cat([g[h] @ x for h in range(3)], 1) @ head.output.weight.T + head.output.bias
    guess = mixed / mixed.norm(dim=1, keepdim=True)
    cosines = (guess * back).sum(1) / back.norm(dim=1)
    weights = [head.theta[0], head.phi[0], head.value[0], head.output]
    penalty = sum((m.weight**2).sum() for m in weights)
    same_loss_and_gradient(ours, (1 - cosines).mean() + 5e-4 * penalty, [front, back], tol=1e-8)


def test_heads_are_frozen_and_stay_in_inference_mode():
    s, t = sample(batch=6)
    method = kd.MHGD.from_sample(s, t)
    assert not any(p.requires_grad for p in method.parameters())
    with pytest.raises(RuntimeError, match=r"MHGD: the preparatory phase was not run"):
        method(s, t)
    method.prepare([t], epochs=1)
    method.train()
    assert not any(p.requires_grad for p in method.parameters())
    assert not method.heads.training
    before = {k: v.clone() for k, v in method.state_dict().items()}
    method(s, t).backward()
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


def test_preparation_learns_and_gives_a_signal():
    """On maps whose back level follows the front one, the heads learn to tell."""
    torch.manual_seed(0)
    mix = torch.randn(6, 4)
    batches = []
    for _ in range(4):
        front = torch.randn(16, 4, 1, 1) + 0.1 * torch.randn(16, 4, 3, 3)
        batches.append([front, torch.einsum("oc,bchw->bohw", mix, front)])
    method = kd.MHGD([4, 6], [4, 6])
    history = method.prepare(batches, epochs=15, lr=3e-3)
    assert history[-1] < 0.7 * history[0]
    assert method(batches[0], batches[0]) < 1e-4
    assert method([torch.randn_like(x) for x in batches[0]], batches[0]) > 1e-2


def test_levels_are_those_of_the_constructor():
    s, t = sample()
    method = kd.MHGD.from_sample(s, t)
    method.mark_prepared()
    with pytest.raises(ValueError, match="MHGD: built for 3 levels, called with 2"):
        method(s[:2], t[:2])
