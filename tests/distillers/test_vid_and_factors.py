"""VID (maps and logits) and FactorTransfer against transcriptions."""

import math

import pytest
import torch
from support.distiller_cases import leaf, randomise_, same_loss_and_gradient
from torch import nn

import kdops.distillers as kd


def gaussian(mu, t, alpha):
    """mean ½ [(μ - t)² / σ² + log σ²], channel by channel."""
    variance = torch.log(1 + torch.exp(alpha)) + 1e-5
    total = 0.0
    for c in range(t.shape[1]):
        total = total + ((mu[:, c] - t[:, c]) ** 2 / variance[c] + variance[c].log()).sum()
    return 0.5 * total / t.numel()


def test_vid_on_maps_and_logits():
    student = [leaf(3, 4, 4, 6), leaf(3, 5, seed=1)]
    teacher = [leaf(3, 6, 2, 3, seed=2), leaf(3, 7, seed=3)]
    method = kd.VID.from_sample(student, teacher)
    assert isinstance(method.means[1], nn.Linear)
    for alpha in method.alphas:
        torch.testing.assert_close(
            torch.log1p(alpha.exp()) + 1e-5, torch.full_like(alpha, 5.0), rtol=1e-6, atol=0
        )
    randomise_(method)
    x = student[0].unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    for i, layer in enumerate(list(method.means[0])[::2]):
        x = torch.relu(x) if i else x
        x = torch.einsum("oc,bchw->bohw", layer.weight[..., 0, 0], x)
    linear = method.means[1]
    mu = student[1] @ linear.weight.T + linear.bias
    theirs = gaussian(x, teacher[0].detach(), method.alphas[0])
    theirs = theirs + gaussian(mu, teacher[1].detach(), method.alphas[1])
    ours = method(student, teacher)
    same_loss_and_gradient(ours, theirs, [*student, *method.parameters()])


def test_vid_messages():
    with pytest.raises(ValueError, match=r"VID: level 0: built for maps and 6 teacher channels"):
        kd.VID(4, 6)(torch.zeros(2, 4), torch.zeros(2, 6))
    with pytest.raises(ValueError, match="one flag per level"):
        kd.VID([4, 4], [6, 6], linear=[True])


@pytest.mark.parametrize("p", [1, 2])
def test_factor_transfer(p):
    student, teacher = [leaf(3, 4, 4, 4)], [leaf(3, 6, 4, 4, seed=2)]
    method = kd.FactorTransfer.from_sample(student, teacher, p=p)
    method.prepare([teacher], epochs=1)
    f_s, f_t = student[0], teacher[0].detach()
    for stack in (method.translators[0], method.encoders[0]):
        assert [block[0].kernel_size for block in stack] == [(3, 3)] * 3
    for block in method.translators[0]:
        y = block[0](f_s)
        f_s = torch.where(y > 0, y, 0.1 * y)
    for block in method.encoders[0]:
        y = block[0](f_t)
        f_t = torch.where(y > 0, y, 0.1 * y).detach()
    assert f_s.shape[1] == f_t.shape[1] == 3
    theirs = 0.0
    for b in range(3):
        a, c = f_t[b] / math.sqrt((f_t[b] ** 2).sum()), f_s[b] / (f_s[b] ** 2).sum().sqrt()
        theirs = theirs + ((a - c).abs() ** p).sum()
    trained = [q for q in method.parameters() if q.requires_grad]
    assert len(trained) == len(list(method.translators.parameters()))
    ours = method(student, teacher)
    same_loss_and_gradient(ours, theirs / f_s.numel(), [student[0], *trained])


def test_paraphraser_learns():
    torch.manual_seed(0)
    base = torch.randn(16, 2, 4, 4)
    teacher = torch.relu(torch.einsum("oc,bchw->bohw", torch.randn(8, 2), base))
    method = kd.FactorTransfer(4, 8)
    history = method.prepare([[teacher[:8]], [teacher[8:]]], epochs=60, lr=1e-2)
    assert history[-1] < 0.5 * history[0]


def test_preparation_needs_batches():
    with pytest.raises(ValueError, match="no batches in epoch 1"):
        kd.FactorTransfer(4, 8).prepare(iter([[torch.randn(2, 8, 4, 4)]]), epochs=2)
