"""FSP and NST against loops over channels."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from support.distiller_cases import leaf, same_loss_and_gradient

import kdops.distillers as kd

SHAPES = [(4, 4, 4), (5, 4, 2), (3, 2, 2)]


def sample():
    s = [leaf(3, *shape, seed=i) for i, shape in enumerate(SHAPES)]
    return s, [leaf(3, *shape, seed=10 + i) for i, shape in enumerate(SHAPES)]


def flow(f1, f2, pool):
    """(C1, C2) of one sample."""
    size = tuple(min(a, b) for a, b in zip(f1.shape[1:], f2.shape[1:], strict=True))
    down = F.adaptive_max_pool2d if pool == "max" else F.adaptive_avg_pool2d
    f1, f2 = down(f1, size), down(f2, size)
    rows = [torch.stack([(a * b).sum() for b in f2]) for a in f1]
    return torch.stack(rows) / (size[0] * size[1])


@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize("variant", ["paper", "mse", "columns"])
def test_fsp(pool, variant):
    s, t = sample()
    terms = []
    for (s1, s2), (t1, t2) in zip(pairwise(s), pairwise(t), strict=True):
        g = [flow(s1[b], s2[b], pool) - flow(t1[b], t2[b], pool).detach() for b in range(3)]
        if variant == "paper":
            terms.append(sum(0.5 * (x**2).sum() for x in g) / 3)
        elif variant == "mse":
            terms.append(torch.stack(g).square().mean())
        else:
            terms.append(sum((x[:, j] ** 2).sum().sqrt() for x in g for j in range(x.shape[1])) / 3)
    method = kd.FSP(pool=pool, variant=variant, weights=[1.0, 0.3])
    same_loss_and_gradient(method(s, t), terms[0] + 0.3 * terms[1], s, tol=1e-8)


def test_fsp_connector_and_messages():
    s, t = sample()
    with pytest.raises(ValueError, match=r"FSP: level 1: the student has 5 channels.*teacher 4"):
        kd.FSP()(s[:2], [t[0], t[0]])
    with pytest.raises(ValueError, match="FSP: needs at least 2 levels, got 1"):
        kd.FSP()(s[0], t[0])
    method = kd.FSP.from_sample(s[:2], [t[0], t[0]])
    mapped = method.connectors[1](s[1])
    torch.testing.assert_close(method(s[:2], [t[0], t[0]]), kd.FSP()([s[0], mapped], [t[0], t[0]]))


def units(f):
    """Channels of one sample as unit vectors."""
    return [row / (row**2).sum().sqrt() for row in f.flatten(1)]


KERNELS = {
    "poly": ({"kernel": "poly", "degree": 3, "c": 0.5}, lambda x, y, _: ((x * y).sum() + 0.5) ** 3),
    "default": ({}, lambda x, y, _: (x * y).sum() ** 2),
    "linear": ({"kernel": "linear"}, lambda x, y, _: (x * y).sum()),
    "gaussian": (
        {"kernel": "gaussian", "bandwidth": 0.7},
        lambda x, y, _: torch.exp(-((x - y) ** 2).sum() / (2 * 0.7**2)),
    ),
}


@pytest.mark.parametrize("kind", KERNELS)
def test_nst(kind):
    options, kernel = KERNELS[kind]
    s, t = leaf(2, 3, 4, 4), leaf(2, 5, 4, 4, seed=1)
    theirs = 0.0
    for b in range(2):
        x, y = units(s[b]), units(t[b].detach())

        def mean(left, right):
            values = [kernel(p, q, None) for p in left for q in right]
            return sum(values) / len(values)

        theirs = theirs + 50 * (mean(y, y) + mean(x, x) - 2 * mean(x, y)) / 2
    same_loss_and_gradient(kd.NST(**options)(s, t), theirs, [s], tol=1e-8)


def test_nst_pools_the_larger_map():
    s, t = leaf(2, 3, 4, 6), leaf(2, 5, 2, 3, seed=1)
    small = s.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    torch.testing.assert_close(kd.NST()(s, t), kd.NST()(small, t))
