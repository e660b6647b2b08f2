"""Beyond min(m, n) = 128: the k largest triples with gradient, and thin full decompositions.

Maps of ImageNet networks and ViTs (spectrum of a network, flat, and tokens with massive entries), a
sweep over p x p across the old limit, and 512 matrices of 1024 x n. report/bars.py reads the ratios
off these cases.
"""

import pytest

import kdops
from benchmarks.bench_svd import _kdops_top, _product
from benchmarks.cases import floors
from benchmarks.cases.shapes import BARS, LARGE, Make, massive, matrices, network
from benchmarks.measure.harness import identify, parametrise
from benchmarks.measure.problem import Problem
from benchmarks.published import svd

VIT = [(196, 384), (197, 192)]
MAPS = {"network": network, "flat": matrices, "massive tokens": massive}
SWEEP = [100, 128, 129, 160, 196, 256, 384, 512, 768, 1024]
COUNTS = [1, 4, 8, 16, 32]
QUICK = {(128, 128), (129, 129), (196, 384)}
BUDGET = 0.6  # seconds of rounds per point of the sweep
# exponents of time and memory over p: a Gram matrix of p² L, decompositions of p³
THEORY = (3, 2)


def _providers(k, everything=True):
    """torch.lobpcg goes astray for more than a few vectors, torch.svd_lowrank on a flat tail."""
    others = {"torch.svd_lowrank": svd.top_by_lowrank(k), "torch.lobpcg": svd.top_by_lobpcg(k)}
    if not everything or k > 4:
        del others["torch.lobpcg"]
    return {
        "torch.linalg.svd": svd.top_by_svd(k),
        "torch Gram + eigh": svd.top_by_gram(k),
        **others,
        "kdops": _kdops_top(k),
    }


def _top(m, n, k=4, batch=8, kind="network", op="beyond 128", **options):
    make: Make = MAPS[kind](m, n, batch)
    return Problem(
        op=f"svd top {k} {op}, {kind}",
        label=f"{batch} of {m}x{n}",
        make=make,
        providers=_providers(k, "extra" not in options),
        reference=svd.top_by_svd(k),
        invariant=svd.projectors,
        floor=floors.top(m, n, k, batch),
        tolerance=5e-3,
        fragile=("torch.lobpcg",),
        **{"slow": True, **options},
    )


def _point(p, k, batch):
    """One size of a sweep."""
    names = _providers(k, everything=False)
    sweep = f"svd top {k} over p, {batch} of p x p"
    extra = {"sweep": sweep, "size": p, "theory": dict.fromkeys(names, THEORY)}
    return _top(p, p, k, batch, op="over p", extra=extra, budget=BUDGET)


def _sweep():
    """All counts for one matrix, and for eight up to 512: beyond, torch needs minutes per count."""
    for p in SWEEP:
        for k in COUNTS:
            yield _point(p, k, 1)
            if p <= 512 or k == 4:
                yield _point(p, k, 8)


def _thin(n, gradient):
    function = _product if gradient else lambda decompose: decompose
    result = (lambda r: r) if gradient else (lambda r: (r[1], r[0] * r[1].unsqueeze(-2) @ r[2]))
    return Problem(
        op="svd, S and product, of 512" if gradient else "svd of 512",
        label=f"1024x{n}",
        make=matrices(1024, n, 512),
        providers={
            "torch.linalg.svd": function(svd.full),
            "torch Gram + eigh": function(svd.full_by_gram),
            "kdops": function(kdops.batched_svd),
        },
        reference=function(svd.full),
        invariant=result,
        floor={} if gradient else floors.svd(1024, n, 512),
        modes=("both",) if gradient else ("forward",),
        tolerance=1e-3 if gradient else 1e-4,
        slow=True,
    )


def _leading(function):
    """S, and the projectors on the leading half of the spectrum, U's and V's."""

    def call(A):
        U, S, Vh = function(A)
        k = S.shape[-1] // 2
        return S, U[..., :k] @ U[..., :k].mT, Vh[..., :k, :].mT @ Vh[..., :k, :]

    return call


def _full(m, n, batch=8):
    """All triples above 128, where torch.linalg computes and kdops adds its guarantees.

    Not compared through U S Vh: some of so many values are closer than "mask" tells apart, and a
    loss that joins U and V there loses a part of its gradient (docs/svd.md).
    """

    def fast(A):
        return kdops.batched_svd(A, mode="fast")

    return Problem(
        op="svd beyond 128, S and leading half",
        label=f"{batch} of {m}x{n}",
        make=matrices(m, n, batch),
        providers={
            "torch.linalg.svd": _leading(svd.full),
            "torch Gram + eigh": _leading(svd.full_by_gram),
            # what it gives up of a square matrix (docs/svd.md) is above the tolerance
            **({"kdops fast": _leading(fast)} if m != n else {}),
            "kdops": _leading(kdops.batched_svd),
        },
        reference=_leading(svd.full),
        modes=("forward", "both"),
        tolerance=1e-3,
        slow=True,
    )


PROBLEMS = [
    *[_full(m, n) for m, n in ((160, 160), (196, 384), (784, 512))],
    *[_top(m, n, slow=(m, n) not in QUICK) for m, n in LARGE],
    *[_top(m, n, kind="flat") for m, n in BARS],
    *[_top(m, n, kind="massive tokens") for m, n in ((196, 384), (784, 512))],
    *[_top(m, n, batch=32) for m, n in BARS],
    *[_top(m, n, batch=64) for m, n in VIT],
    *[_thin(n, gradient) for n in (3, 8, 32) for gradient in (False, True)],
    *_sweep(),
]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_svd_large(measured, problem, provider, mode):
    measured(problem, provider, mode)
