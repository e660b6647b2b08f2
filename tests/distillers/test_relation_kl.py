"""RelationKL and PKT against their formulas, row by row."""

import pytest
import torch
from support.distiller_cases import leaf, same_loss_and_gradient

import kdops.distillers as kd
from benchmarks.published.similarity_kl import pkt


def unit(x):
    return x / x.square().sum(-1, keepdim=True).sqrt()


def kl(s, t, keys_s, keys_t, tau_s=0.1, tau_t=0.1):
    """(rows,) for rows (N, D) against keys (M, D)."""
    log_s = (unit(s) @ unit(keys_s).T / tau_s).log_softmax(1)
    log_t = (unit(t) @ unit(keys_t).T / tau_t).log_softmax(1)
    return (log_t.exp() * (log_t - log_s)).sum(1)


def test_embeddings():
    s, t = [leaf(6, 3), leaf(6, 4, seed=1)], [leaf(6, 7, seed=2), leaf(6, 9, seed=3)]
    theirs = sum(
        w * kl(a, b.detach(), a, b.detach(), 0.1, 0.2).mean()
        for w, a, b in zip((1.0, 0.5), s, t, strict=True)
    )
    same_loss_and_gradient(kd.RelationKL(0.1, 0.2, weights=[1.0, 0.5])(s, t), theirs, s)


@pytest.mark.parametrize("per", ["image", "pairs", "batch"])
def test_whom_a_token_meets(per):
    """Tokens with padding; per pair of images a softmax over the tokens of one (CIRKD)."""
    s, t = leaf(3, 5, 4), leaf(3, 5, 6, seed=1)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 1, 0]]) > 0
    kept = [(s[i, m], t.detach()[i, m]) for i, m in enumerate(mask)]
    whole = tuple(torch.cat(x) for x in zip(*kept, strict=True))
    if per == "image":
        theirs = torch.cat([kl(a, b, a, b) for a, b in kept]).mean()
    elif per == "pairs":
        theirs = torch.stack([kl(*whole, a, b).mean() for a, b in kept]).mean()
    else:
        theirs = kl(*whole, *whole).mean()
    method = kd.RelationKL(per=per, layout="tokens")
    same_loss_and_gradient(method(s, t, mask=mask), theirs, [s])


def test_minilm():
    """Scaled products of relation heads, whose width may differ."""
    s, t = leaf(2, 7, 12), leaf(2, 7, 18, seed=1)

    def relation(x):
        heads = x.view(2, 7, 3, -1).transpose(1, 2)
        return (heads @ heads.mT / heads.shape[-1] ** 0.5).log_softmax(-1)

    target = relation(t.detach())
    theirs = (target.exp() * (target - relation(s))).sum(-1).mean()
    method = kd.RelationKL(1.0, similarity="dot", heads=3, layout="tokens")
    same_loss_and_gradient(method(s, t), theirs, [s])
    with pytest.raises(ValueError, match="RelationKL: 12 columns are not 5 heads"):
        kd.RelationKL(heads=5, layout="tokens")(s, t)


def test_queue_and_self_pairs():
    s, t, queue = leaf(5, 4), leaf(5, 4, seed=1), leaf(30, 4, seed=2).detach()
    theirs = kl(s, t.detach(), queue, queue).mean()
    same_loss_and_gradient(kd.RelationKL()(s, t, keys=queue), theirs, [s])
    others = [[j for j in range(5) if j != i] for i in range(5)]
    rows = [
        kl(s[i : i + 1], t.detach()[i : i + 1], s[o], t.detach()[o]) for i, o in enumerate(others)
    ]
    same_loss_and_gradient(kd.RelationKL(self_pairs=False)(s, t), torch.cat(rows).mean(), [s])


def test_pkt():
    s, t = [leaf(5, 3, 2, 2), leaf(5, 4, seed=1)], [leaf(5, 7, seed=2), leaf(5, 9, seed=3)]
    theirs = sum(pkt(a.flatten(1), b.detach()) for a, b in zip(s, t, strict=True))
    same_loss_and_gradient(kd.PKT()(s, t), theirs, s)
    assert kd.PKT.default_weight == 3e4


def test_what_they_refuse():
    for message, options in {
        "per is 'image', 'pairs' or 'batch', got 'pixel'": {"per": "pixel"},
        "per='pairs' takes no group": {"per": "pairs", "heads": 2},
    }.items():
        with pytest.raises(ValueError, match=f"^RelationKL: {message}"):
            kd.RelationKL(**options)
    with pytest.raises(ValueError, match="RelationKL: level 0: images have no relations"):
        kd.RelationKL(group="world", layout="tokens")(leaf(2, 3, 4), leaf(2, 3, 4))
    with pytest.raises(ValueError, match="PKT: epsilon must be positive, got 0"):
        kd.PKT(0.0)
