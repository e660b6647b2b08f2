"""ActivationBoundary and Overhaul, the two methods on pre-activations, entry by entry."""

import math

import pytest
import torch
from support.distiller_cases import leaf, randomise_, same_loss_and_gradient
from torch import nn

import kdops.distillers as kd


def connected(module, x):
    """1x1 convolution and batch statistics, by hand."""
    conv, norm = module
    r = torch.einsum("oc,bchw->bohw", conv.weight[..., 0, 0], x)
    mean = r.mean((0, 2, 3), keepdim=True)
    r = (r - mean) / torch.sqrt(((r - mean) ** 2).mean((0, 2, 3), keepdim=True) + norm.eps)
    return r * norm.weight[:, None, None] + norm.bias[:, None, None]


def sample():
    student = [leaf(3, 4, 4, 4), leaf(3, 5, 2, 2, seed=1)]
    teacher = [leaf(3, 6, 4, 4, seed=2), leaf(3, 7, 2, 2, seed=3)]
    return student, teacher


def test_activation_boundary():
    student, teacher = sample()
    method = kd.ActivationBoundary.from_sample(student, teacher, margin=0.7)
    randomise_(method)
    theirs = 0.0
    for i, (f, t) in enumerate(zip(student, teacher, strict=True)):
        s = connected(method.connectors[i], f)
        total = 0.0
        for a, b in zip(s.flatten(), t.flatten(), strict=True):
            if b <= 0 and a > -0.7:
                total = total + (a + 0.7) ** 2
            if b > 0 and a <= 0.7:
                total = total + (a - 0.7) ** 2
        theirs = theirs + (0.5, 1.0)[i] * total / 3
    parameters = list(method.parameters())
    same_loss_and_gradient(method(student, teacher), 3e-3 * theirs, [*student, *parameters])


def truncated_mean(gamma, beta):
    """E[x | x < 0], x ~ N(beta, gamma²), by quadrature."""
    if 0.5 * math.erfc(beta / abs(gamma) / math.sqrt(2)) <= 1e-3:
        return -3 * abs(gamma)
    x = torch.linspace(beta - 12 * abs(gamma), 0.0, 400_001, dtype=torch.float64)
    density = torch.exp(-((x - beta) ** 2) / (2 * gamma**2))
    return float(torch.trapezoid(x * density, x) / torch.trapezoid(density, x))


def test_overhaul():
    student, teacher = sample()
    method = kd.Overhaul.from_sample(student, teacher)
    randomise_(method)
    norms = [nn.BatchNorm2d(6).double(), nn.BatchNorm2d(7).double()]
    with torch.no_grad():
        for k, norm in enumerate(norms):
            norm.weight.copy_(torch.linspace(-1.5, 2.0, norm.num_features) + 0.01)
            norm.bias.copy_(torch.linspace(-1.0, 1.0, norm.num_features) + 0.1 * k)
            norm.bias[0] = 9.0  # Φ(-β/γ) below 1e-3
    margins = method.prepare(batch_norms=norms)
    theirs = 0.0
    for i, (f, t) in enumerate(zip(student, teacher, strict=True)):
        rows = zip(norms[i].weight.tolist(), norms[i].bias.tolist(), strict=True)
        m = torch.tensor([truncated_mean(g, b) for g, b in rows], dtype=torch.float64)
        torch.testing.assert_close(margins[i], m, rtol=1e-6, atol=1e-9)
        s = connected(method.connectors[i], f)
        t2 = torch.maximum(t.detach(), margins[i][:, None, None])
        total = 0.0
        for a, b in zip(s.flatten(), t2.flatten(), strict=True):
            if a > b or b > 0:
                total = total + (a - b) ** 2
        theirs = theirs + (0.5, 1.0)[i] * total / 3
    parameters = list(method.parameters())
    same_loss_and_gradient(method(student, teacher), 1e-3 * theirs, [*student, *parameters])


def test_overhaul_margin_from_data():
    student, teacher = sample()
    method = kd.Overhaul.from_sample(student, teacher)
    other = [leaf(2, *t.shape[1:], seed=9).detach() for t in teacher]
    margins = method.prepare([teacher, other])
    for t, o, m in zip(teacher, other, margins, strict=True):
        for c in range(t.shape[1]):
            x = torch.cat([t[:, c].flatten(), o[:, c].flatten()])
            torch.testing.assert_close(m[c], x[x < 0].mean())


def test_messages():
    method = kd.Overhaul([4], [6])
    with pytest.raises(ValueError, match="one of them"):
        method.prepare()
    with pytest.raises(ValueError, match=r"channels \[5\].*\[6\]"):
        method.prepare(batch_norms=[nn.BatchNorm2d(5)])
    with pytest.raises(ValueError, match="affine BatchNorm, got ReLU"):
        method.prepare(batch_norms=[nn.ReLU()])
    with pytest.raises(ValueError, match=r"ActivationBoundary: level 0: expected maps"):
        kd.ActivationBoundary([4], [6])(torch.zeros(2, 4), torch.zeros(2, 6))


def test_boundaries_without_a_connector():
    s, t = [leaf(4, 8, 3, 3), leaf(4, 12, 3, 3)], [leaf(4, 8, 3, 3, seed=5), leaf(4, 12, 3, 3)]
    bare, auto = kd.ActivationBoundary(connector=None), kd.ActivationBoundary.from_sample
    loss = bare(s, t)
    expected = 0.0
    for w, x, y in zip((0.5, 1.0), s, t, strict=True):
        below, above = (x + 1).clamp_min(0) ** 2, (1 - x).clamp_min(0) ** 2
        expected = expected + w * torch.where(y > 0, above, below).sum() / 4
    torch.testing.assert_close(loss, 3e-3 * expected)
    torch.testing.assert_close(auto(s, t, connector="auto")(s, t), loss)
    assert not list(bare.parameters())
    mixed = auto([s[0], s[0]], t, connector="auto")
    assert [len(list(m.parameters())) for m in mixed.connectors] == [0, 3]
    with pytest.raises(ValueError, match="ActivationBoundary: level 1: the student has 8 channels"):
        bare([s[0], s[0]], t)
    with pytest.raises(ValueError, match="connector is 'always', 'auto' or None, got 'never'"):
        kd.ActivationBoundary([8], [8], connector="never")
    with pytest.raises(ValueError, match="student_channels has 0 levels"):
        kd.ActivationBoundary()
