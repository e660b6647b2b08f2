"""IEP and its black-box term against a transcription; plane mapping, incremental PCA, learning."""

import math

import pytest
import torch
from support.distiller_cases import leaf, randomise_, same_loss_and_gradient
from support.graph_methods import STUDENT, divergence, logits, sample, vectors

import kdops.distillers as kd
from kdops.distillers._embedding import IncrementalPCA, MessagePassing, plane_map


def test_plane_mapping():
    x = leaf(50, 7)
    x = x / x.norm(dim=1, keepdim=True)
    c = torch.full((7,), 1 / math.sqrt(7), dtype=torch.float64)
    image, theta = plane_map(x), torch.acos(x @ c)
    torch.testing.assert_close(image.norm(dim=1), 2 * torch.tan(theta / 2))
    torch.testing.assert_close(image @ c, torch.zeros(50, dtype=torch.float64), atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(plane_map, leaf(4, 5))
    poles = torch.stack([c, -c, 0 * c]).requires_grad_()
    image = plane_map(poles)
    image.sum().backward()
    assert torch.isfinite(image).all()
    assert torch.isfinite(poles.grad).all()


def test_incremental_pca():
    """Two batches by hand, the second from the rows [X - mean; (S V)ᵀ; M - mean]."""
    pca, batches = IncrementalPCA(6).double(), [leaf(9, 6).detach(), leaf(5, 6, seed=1).detach()]

    def directions(rows):
        _, s, vh = torch.linalg.svd(rows, full_matrices=False)
        signs = [1.0 if v.max() + v.min() > 0 else -1.0 for v in vh]
        return s[:3], (vh * torch.tensor(signs, dtype=torch.float64)[:, None])[:3].T

    pca.update(batches[0])
    mean = batches[0].mean(0)
    s, v = directions(batches[0] - mean)
    torch.testing.assert_close(pca.basis, v)
    torch.testing.assert_close(pca.mean, mean)
    pca.update(batches[1])
    new = batches[1].mean(0)
    s, v = directions(torch.cat([batches[1] - new, (v * s).T, (mean - new)[None]]))
    torch.testing.assert_close(pca.basis, v)
    torch.testing.assert_close(pca.scale, s)
    torch.testing.assert_close(pca.mean, 0.1 * mean + 0.9 * new)
    torch.testing.assert_close(pca(batches[0]), (batches[0] - pca.mean) @ v)


def test_fewer_samples_than_components():
    pca = IncrementalPCA(12)
    pca.update(torch.randn(2, 12))
    torch.testing.assert_close(pca.basis.T @ pca.basis, torch.eye(6), atol=1e-5, rtol=0)


def bn(norm, x):
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return (x - norm.running_mean) * scale + norm.bias


def passing(net, front, back):
    """Ã (B, B) and the list of both iterations' messages, edge by edge."""
    batch, d = back.shape
    x = bn(net.edge[1], front @ net.edge[0].weight.T + net.edge[0].bias)
    x = x / x.norm(dim=1, keepdim=True)
    e = [[d * x[i] * x[j] for j in range(batch)] for i in range(batch)]
    messages = []
    for _ in range(2):
        m = [[None] * batch for _ in range(batch)]
        for i in range(batch):
            for j in range(batch):
                h = torch.cat([back[i] - back[j], e[i][j].mean()[None]])
                value = bn(net.message_norm, net.message.weight @ h + net.message.bias)
                gate = bn(net.gate_norm, net.gate.weight @ h + net.gate.bias)
                m[i][j] = value / (1 + torch.exp(-gate))
                e[i][j] = e[i][j] + m[i][j]
        messages.append(torch.stack([torch.stack(row) for row in m]))
    return torch.stack([torch.stack([v.mean() for v in row]) for row in e]), messages


def prepared(s, t, **options):
    torch.manual_seed(0)
    method = kd.IEP.from_sample(s, t, **options)
    randomise_(method)
    method.prepare([t, [x.flip(0) + 0.1 for x in t]], epochs=1)
    return method


@pytest.mark.parametrize("black_box", [False, True])
def test_transfer(black_box):
    s, t = sample(batch=4, teacher=STUDENT)
    method = prepared(s, t, black_box=black_box)
    codes = []
    for i, (x, y) in enumerate(zip(s, t, strict=True)):
        both = [vectors(x[b], y[b], 1, True) for b in range(4)]
        planes = [plane_map(torch.stack([v[k][:, 0] for v in both])) for k in range(2)]
        pca = method.codes[i]
        codes.append([(p - pca.mean) @ pca.basis for p in planes])
    alt = inner = black = 0.0
    for i in range(2):
        graph_s, m_s = passing(method.graphs[i], codes[i][0], codes[i + 1][0])
        graph_t, m_t = passing(method.graphs[i], codes[i][1], codes[i + 1][1])
        inner = inner + divergence(graph_t.detach(), graph_s)
        alt = alt + sum((a - b.detach()).abs().sum() for a, b in zip(m_s, m_t, strict=True)) / 16
        if black_box:
            a = logits(method.attention[i], codes[i][0], codes[i + 1][0], 7)
            b = logits(method.attention[i], codes[i][1], codes[i + 1][1], 7)
            black = black + divergence(a.tanh(), b.tanh().detach())
    same_loss_and_gradient(method(s, t), inner + alt + black, s, tol=1e-7)
    terms = method.knowledge(s, t)
    assert set(terms) == ({"int", "alt", "black"} if black_box else {"int", "alt"})
    torch.testing.assert_close(terms["int"], inner)
    torch.testing.assert_close(terms["alt"], alt)


def test_networks_are_frozen():
    s, t = sample(batch=6, teacher=STUDENT)
    method = kd.IEP.from_sample(s, t, black_box=True)
    with pytest.raises(RuntimeError, match="IEP: the preparatory phase was not run"):
        method(s, t)
    method.prepare([t], epochs=1)
    method.train()
    assert not any(p.requires_grad for p in method.parameters())
    before = {k: v.clone() for k, v in method.state_dict().items()}
    method(s, t).backward()
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


@pytest.mark.parametrize("black_box", [False, True])
def test_preparation_learns(black_box):
    torch.manual_seed(0)
    mix, batches = torch.randn(8, 4), []
    for _ in range(3):
        front = torch.randn(16, 4, 1, 1) + 0.1 * torch.randn(16, 4, 3, 3)
        batches.append([front, torch.einsum("oc,bchw->bohw", mix, front)])
    method = kd.IEP([4, 8], [4, 8], black_box=black_box)
    history = method.prepare(batches, epochs=15, lr=3e-3)
    assert history[-1] < 0.7 * history[0]
    assert method(batches[0], batches[0]) < 1e-3


def test_message_passing_shapes():
    graph, messages = MessagePassing(3, 4)(torch.randn(5, 3), torch.randn(5, 4))
    assert graph.shape == (5, 5)
    assert messages.shape == (5, 5, 8)


def test_messages():
    s, t = sample(batch=4)
    method = kd.IEP.from_sample(s, t)
    method.mark_prepared()
    with pytest.raises(ValueError, match=r"IEP: level 0: .*equal positions"):
        method(s, t)
