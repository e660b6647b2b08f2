"""CC, RSD, SKDDirection, IRG and DarkRank against loops over samples."""

import math

import pytest
import torch
from support.distiller_cases import leaf, randomise_, same_loss_and_gradient

import kdops.distillers as kd


def rows(n=6, d_s=4, d_t=5):
    return leaf(n, d_s), leaf(n, d_t, seed=1)


def cosines(x):
    x = torch.stack([r / r.square().sum().sqrt() for r in x])
    return torch.stack([torch.stack([(a * b).sum() for b in x]) for a in x])


def squares(x):
    return torch.stack([torch.stack([(a - b).square().sum() for b in x]) for a in x])


@pytest.mark.parametrize("order", [1, 2, 5])
def test_cc(order):
    s, t = rows()

    def kernel(x):
        terms = [0.8**p / math.factorial(p) * cosines(x) ** p for p in range(order + 1)]
        return math.exp(-0.8) * sum(terms)

    theirs = (kernel(s) - kernel(t.detach())).square().sum() / 36
    same_loss_and_gradient(kd.CC(order=order)(s, t), theirs, [s])


def test_cc_kernels():
    s, t = rows()
    unit = [torch.stack([r / r.square().sum().sqrt() for r in x]) for x in (s, t.detach())]
    k_s, k_t = (torch.exp(-0.4 * squares(x)) for x in unit)
    same_loss_and_gradient(kd.CC(exact=True)(s, t), (k_s - k_t).square().mean(), [s])
    torch.testing.assert_close(kd.CC(order=25)(s, t), kd.CC(exact=True)(s, t), rtol=1e-9, atol=0)
    theirs = ((s @ s.T) - (t @ t.T).detach()).square().mean()
    same_loss_and_gradient(kd.CC(kernel="bilinear")(s, t), theirs, [s])
    maps = [x.detach().view(6, -1, 1, 1) for x in (s, t)]
    torch.testing.assert_close(kd.CC()(*maps), kd.CC()(s, t).detach())
    for wrong in ({"kernel": "rbf"}, {"kernel": "bilinear", "exact": True}, {"gamma": 0.0},
                  {"order": 0}):  # fmt: skip
        with pytest.raises(ValueError, match=r"^CC: "):
            kd.CC(**wrong)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
def test_rsd(shape):
    """Through D x D and through B x B."""
    s, t = leaf(*shape), leaf(*shape, seed=1)

    def standard(x):
        mean = x.sum(0) / len(x)
        return (x - mean) / (((x - mean).square().sum(0) / len(x)).sqrt() + 1e-5)

    c = standard(s).T @ standard(t.detach()) / len(s)
    theirs = 0.0
    for i in range(shape[1]):
        for j in range(shape[1]):
            theirs = theirs + ((c[i, j] - 1) ** 2 if i == j else 0.01 * c[i, j] ** 2)
    same_loss_and_gradient(kd.RSD()(s, t), theirs, [s])
    positions = [x.T[None].contiguous().detach() for x in (s, t)]  # one map, rows its positions
    torch.testing.assert_close(kd.RSD(layout="channels")(*positions), theirs.detach())


def test_rsd_widths_and_positions():
    s, t = [leaf(5, 4)], [leaf(5, 6, seed=1)]
    with pytest.raises(ValueError, match=r"RSD: level 0: the student has 4 channels.*connector"):
        kd.RSD()(s, t)
    method = kd.RSD.from_sample(s, t)
    randomise_(method)
    projected = s[0] @ method.connectors[0][0].weight[..., 0, 0].T
    torch.testing.assert_close(method(s, t), kd.RSD()(projected, t))
    with pytest.raises(
        ValueError, match=r"RSD: level 0: .*\[5, 4, 2, 2\] and \[5, 4, 3, 2\]; pool"
    ):
        kd.RSD()(leaf(5, 4, 2, 2), leaf(5, 4, 3, 2))


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_skd_direction(variant):
    z_s, z_t = leaf(6, 4), leaf(6, 4, seed=1)
    gap = (cosines(z_s) - cosines(z_t.detach())) / (4 if variant == "code" else 1)
    inverse = torch.linalg.inv(torch.cov(gap.T) + 0.1 * torch.eye(6, dtype=torch.float64))
    theirs = sum((row @ inverse @ row).sqrt() for row in gap) / 6
    same_loss_and_gradient(kd.SKDDirection(variant=variant)(z_s, z_t), theirs, [z_s])
    for wrong in ({"variant": "x"}, {"tikhonov": 0.0}):
        with pytest.raises(ValueError, match=r"^SKDDirection: "):
            kd.SKDDirection(**wrong)


def irg_levels(seed):
    """Two maps, the second smaller with twice the channels, an embedding, logits."""
    shapes = [(4, 6, 4, 4), (4, 12, 2, 2), (4, 9), (4, 5)]
    return [leaf(*shape, seed=seed + i) for i, shape in enumerate(shapes)]


def test_irg():
    s, t = irg_levels(0), irg_levels(50)

    def edges(x):
        d = squares(x.flatten(1))
        return d / d.max()

    def transform(front, back):
        front = torch.nn.functional.avg_pool2d(front, 2)
        change = (front - (back[:, 0::2] + back[:, 1::2]) / 2).square().sum((1, 2, 3))
        return change / change.max()

    levels = zip(s[:3], [x.detach() for x in t[:3]], strict=True)
    edge = sum((edges(a) - edges(b)).square().mean() for a, b in levels) / 3
    change = (transform(s[0], s[1]) - transform(t[0], t[1]).detach()).square().mean()
    vertex = (s[3] - t[3].detach()).square().mean()
    same_loss_and_gradient(kd.IRG()(s, t), 0.1 * vertex + 5 * edge + 5 * change, s)
    alone = kd.IRG(0.0, 1.0, 0.0)(s, t)
    torch.testing.assert_close(alone, edge)
    wide = [torch.cat([x, x], 1) for x in t[:3]] + [t[3]]
    assert torch.isfinite(kd.IRG()(s, wide))


def test_irg_messages():
    s, t = irg_levels(0), irg_levels(50)
    with pytest.raises(ValueError, match="IRG: needs at least 2 levels, features and the logits"):
        kd.IRG()(s[3], t[3])
    with pytest.raises(ValueError, match=r"IRG: level 3: the last level is the logits.*\[4, 5\]"):
        kd.IRG()(s, [*t[:3], t[3][:, :4]])


@pytest.mark.parametrize("length", [2, 4, None])
@pytest.mark.parametrize("normalize", [False, True])
def test_darkrank(length, normalize):
    s, t = rows(7)

    def scores(x):
        if normalize:
            x = torch.stack([r / r.square().sum().sqrt() for r in x])
        return {
            (i, j): -3 * (x[i] - x[j]).square().sum().sqrt() ** 3
            for i in range(7)
            for j in range(7)
            if i != j
        }

    score_s, score_t = scores(s), scores(t.detach())
    theirs = 0.0
    for i in range(7):
        order = sorted((j for j in range(7) if j != i), key=lambda j: -score_t[i, j])[:length]
        for k in range(len(order)):
            rest = sum(torch.exp(score_s[i, j]) for j in order[k:])
            theirs = theirs - (score_s[i, order[k]] - torch.log(rest)) / 7
    ours = kd.DarkRank(length=length, normalize=normalize)(s, t)
    same_loss_and_gradient(ours, theirs, [s])


def test_darkrank_at_equal_samples():
    """A sample that lies twice in the batch ranks its double first, never itself."""
    s, t = rows()
    doubled = [x.detach()[[0, 0, 1, 2, 3, 4]].requires_grad_() for x in (s, t)]
    loss = kd.DarkRank()(*doubled)
    gradient = torch.autograd.grad(loss, doubled[0])[0]
    usual = torch.autograd.grad(kd.DarkRank()(s, t), s)[0]
    assert gradient.isfinite().all()
    assert gradient.norm() < 10 * usual.norm()
    with pytest.raises(ValueError, match="DarkRank: length is 2 or more"):
        kd.DarkRank(length=1)


METHODS = [kd.CC(), kd.CC(exact=True), kd.CC(kernel="bilinear"), kd.RSD(), kd.SKDDirection(),
           kd.DarkRank(), kd.IRG()]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_one_sample_zero_rows_and_its_own_teacher(method):
    def call(x, y):
        both = [[x, x], [y, y]] if method.name == "IRG" else [x, y]
        loss = method(*both)
        return loss, torch.autograd.grad(loss, x)[0]

    one, some, zero = leaf(1, 5), leaf(4, 5), torch.zeros(4, 5, dtype=torch.float64)
    for x, y in [(one, leaf(1, 5, seed=1)), (some, some), (zero, some), (some, zero), (zero, zero)]:
        loss, gradient = call(x.detach().clone().requires_grad_(), y.detach())
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
    x = leaf(4, 5)
    loss, gradient = call(x, x.detach())
    if method.name not in ("DarkRank", "RSD"):
        assert loss < 1e-20
        assert gradient.abs().max() < 1e-8
