"""What KD-SVD and MHGD add to a training iteration, part by part: forward and backward on maps.

svd: the aligned singular vectors of all levels, student and teacher. relation: KD-SVD's RBF between
the vectors of consecutive levels. attention: MHGD's trained heads between them, the same code on
both sides. Called by bench_iteration.py.
"""

from itertools import pairwise

import torch

from benchmarks.published import distillers as published
from kdops import svd_rbf_loss
from kdops.distillers._spectral import aligned_vectors

PARTS = ("part: svd", "part: relation", "part: attention")


def gradient(part, side, mhgd):
    """Function of three student and three teacher levels: forward, then backward to the student."""
    if part == "part: svd":
        function = _plain_vectors if side == "published" else _fast_vectors
    elif part == "part: relation":
        function = _relation(published.rbf_loss if side == "published" else svd_rbf_loss)
    else:
        function = _attention(mhgd)

    def run(*leaves):
        outputs = function(leaves[:3], leaves[3:])
        return torch.autograd.grad(outputs, leaves[:3], [torch.ones_like(o) for o in outputs])

    return run


def leaves(part, student, teacher):
    """What the part reads, made of the maps: the maps themselves, or their vectors."""
    with torch.no_grad():
        if part != "part: svd":
            pairs = zip(student, teacher, strict=True)
            student, teacher = zip(*(published.level_vectors(s, t) for s, t in pairs), strict=True)
    wanted = [s.detach().requires_grad_() for s in student]
    return (*wanted, *(t.detach() for t in teacher))


def _plain_vectors(student, teacher):
    return [published.level_vectors(s, t)[0] for s, t in zip(student, teacher, strict=True)]


def _fast_vectors(student, teacher):
    return [aligned_vectors(pair, 1, 4, True)[0] for pair in zip(student, teacher, strict=True)]


def _relation(loss):
    def run(s, t):
        pairs = pairwise(range(3))
        return [torch.stack([loss(s[i], s[j], t[i], t[j]) for i, j in pairs]).sum()]

    return run


def _attention(mhgd):
    def run(student, teacher):
        levels = [(s.squeeze(2), t.squeeze(2)) for s, t in zip(student, teacher, strict=True)]
        heads = zip(mhgd.heads, pairwise(levels), strict=True)
        return [torch.stack([head.divergence(front, back) for head, (front, back) in heads]).sum()]

    return run
