"""Whole distillers at a pair's levels: loss and gradient with respect to the student's maps."""

import pytest
import torch

import kdops
from benchmarks.cases import shapes
from benchmarks.measure.harness import identify, parametrise
from benchmarks.measure.problem import Problem
from benchmarks.published import distillers as published
from kdops import distillers

BATCH = 32  # the unfused SVD route takes seconds at 128 on two cores
PAIR = "ResNet32-ResNet8"


def _levels(loss):
    """A function of flat arguments: three student maps, three teacher maps."""
    return lambda *maps: loss(list(maps[:3]), list(maps[3:]))


def _prepared(kind, levels):
    """MHGD or IEP with heads trained for one epoch on one batch; the same for both providers."""
    torch.manual_seed(0)
    make = shapes.correlated_maps(levels, BATCH)
    maps = make(torch.Generator().manual_seed(1), torch.float32, "cpu")
    channels = [c for c, _, _ in levels]
    method = kind(channels, channels)
    with torch.enable_grad():
        method.prepare([list(maps[3:])], epochs=1)
    return method.requires_grad_(False)


class _Lazy:
    """A method that is prepared when it is first called, not when the file is collected."""

    def __init__(self, kind, levels, plain):
        self.kind, self.levels, self.plain, self.methods = kind, levels, plain, {}

    def method(self, like):
        if not self.methods:
            self.methods[torch.float32, "cpu"] = _prepared(self.kind, self.levels)
        key = like.dtype, like.device.type
        if key not in self.methods:
            copy = self.kind(*[[c for c, _, _ in self.levels]] * 2).to(like)
            copy.load_state_dict(self.methods[torch.float32, "cpu"].state_dict())
            copy.mark_prepared()
            self.methods[key] = copy.requires_grad_(False)
        return self.methods[key]

    def ours(self, student, teacher):
        return self.method(student[0])(student, teacher)

    def published(self, student, teacher):
        return self.plain(self.method(student[0]))(student, teacher)


def _problem(name, plain, ours, make, label, *, tolerance=1e-2, slow=False):
    return Problem(
        op=name,
        label=label,
        make=make,
        providers={"published": plain, "kdops": ours},
        reference=plain,
        tolerance=tolerance,
        slow=slow,
    )


def _map_problems(levels):
    make, label = shapes.correlated_maps(levels, BATCH), f"({BATCH}; {PAIR})"
    methods = {
        "KDSVD": (published.kdsvd, distillers.KDSVD(), False),
        "FSP": (published.fsp, lambda s, t: distillers.FSP()(s, t), True),
        "NST": (published.nst, lambda s, t: distillers.NST()(s, t), True),
        "AttentionTransfer": (
            published.attention,
            lambda s, t: distillers.AttentionTransfer()(s, t),
            True,
        ),
    }
    for kind, plain, slow in (
        (distillers.MHGD, published.mhgd, False),
        (distillers.IEP, published.iep, True),
    ):
        lazy = _Lazy(kind, levels, plain)
        methods[kind.__name__] = (lazy.published, lazy.ours, slow)
    return [
        _problem(name, _levels(plain), _levels(ours), make, label, slow=slow)
        for name, (plain, ours, slow) in methods.items()
    ]


def _embedding_problems():
    make, label = shapes.normal((128, 128), (128, 128)), "(128, 128)"
    rkd, sp = distillers.RKD(), kdops.similarity_loss
    return [
        _problem("RKD", published.rkd, rkd, make, label),
        _problem("SimilarityPreserving", published.similarity_last, sp, make, label),
    ]


def _token_problems():
    """Tokens (B, N, D), read where they lie, against the published forms of their maps."""
    levels = [(192, 8, 8)] * 3
    make_maps = shapes.correlated_maps(levels, BATCH)

    def make(generator, dtype, device):
        maps = [x.detach().flatten(2).mT for x in make_maps(generator, dtype, device)]
        return tuple(x.contiguous().requires_grad_(i < 3) for i, x in enumerate(maps))

    def as_maps(plain):
        return lambda s, t: plain(*[[x.mT.unflatten(2, (8, 8)) for x in f] for f in (s, t)])

    methods = {
        "KDSVD": (published.kdsvd, distillers.KDSVD(layout="tokens")),
        "FSP": (published.fsp, distillers.FSP(layout="tokens")),
        "NST": (published.nst, distillers.NST(layout="tokens")),
        "AttentionTransfer": (published.attention, distillers.AttentionTransfer(layout="tokens")),
    }
    label = f"({BATCH}; tokens, 64 of 192)"
    return [
        _problem(name, _levels(as_maps(plain)), _levels(ours), make, label, slow=name != "KDSVD")
        for name, (plain, ours) in methods.items()
    ]


PROBLEMS = [*_map_problems(shapes.PAIRS[PAIR]), *_embedding_problems(), *_token_problems()]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_distiller(measured, problem, provider, mode):
    measured(problem, provider, mode)
