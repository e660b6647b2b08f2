"""GramAnchoring against loops over pairs of tokens."""

import pytest
import torch
from support.distiller_cases import leaf, same_loss_and_gradient

import kdops.distillers as kd


def cosines(tokens):
    n = len(tokens)
    unit = [x / (x**2).sum().sqrt() for x in tokens]
    return [[(unit[i] * unit[j]).sum() for j in range(n)] for i in range(n)]


def anchoring(student, teacher, negatives):
    """mean (G_S - G_T)² of two lists of tokens."""
    total, zero = 0.0, torch.zeros((), dtype=torch.float64)
    for row_s, row_t in zip(cosines(student), cosines(teacher), strict=True):
        for a, b in zip(row_s, row_t, strict=True):
            b = zero if negatives != "keep" and b < 0 else b
            a = zero if negatives == "drop" and a < 0 else a
            total = total + (a - b) ** 2
    return total / len(student) ** 2


@pytest.mark.parametrize("negatives", ["keep", "drop", "drop_teacher"])
def test_images(negatives):
    s, t = [leaf(2, 6, 4), leaf(2, 5, 3, seed=1)], [leaf(2, 6, 7, seed=2), leaf(2, 5, 9, seed=3)]
    method = kd.GramAnchoring(negatives, weights=[1.0, 0.5], layout="tokens")
    theirs = 0.0
    for w, a, b in zip((1.0, 0.5), s, t, strict=True):
        images = [anchoring(x, y.detach(), negatives) for x, y in zip(a, b, strict=True)]
        theirs = theirs + w * sum(images) / 2
    same_loss_and_gradient(method(s, t), theirs, s, tol=1e-9)


def test_a_batch_is_one_matrix():
    s, t = leaf(2, 5, 3), leaf(2, 5, 4, seed=1)
    theirs = anchoring(s.flatten(0, 1), t.detach().flatten(0, 1), "drop")
    method = kd.GramAnchoring("drop", per="batch", layout="tokens")
    same_loss_and_gradient(method(s, t), theirs, [s])
    mask = torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 0, 1]])
    theirs = anchoring(s[mask == 1], t.detach()[mask == 1], "drop")
    same_loss_and_gradient(method(s, t, mask=mask), theirs, [s])


def test_maps_are_pooled_to_the_smaller():
    s, t = leaf(2, 3, 4, 4), leaf(2, 5, 2, 2, seed=1)
    pooled = torch.nn.functional.avg_pool2d(s, 2).flatten(2).mT
    other = t.detach().flatten(2).mT
    theirs = sum(anchoring(x, y, "keep") for x, y in zip(pooled, other, strict=True)) / 2
    same_loss_and_gradient(kd.GramAnchoring()(s, t), theirs, [s])


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"GramAnchoring: negatives is 'keep'.*'remove'"):
        kd.GramAnchoring("remove")
    with pytest.raises(ValueError, match="group= needs per='batch'"):
        kd.GramAnchoring(group="world")
    with pytest.raises(ValueError, match=r"GramAnchoring: level 0: expected maps"):
        kd.GramAnchoring()(leaf(4, 5), leaf(4, 5))
    with pytest.raises(ValueError, match="tokens need a grid"):
        kd.GramAnchoring(layout="tokens")(leaf(2, 9, 5), leaf(2, 4, 5))
