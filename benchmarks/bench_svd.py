"""batched_svd, batched_svdvals and the top-k gradient against torch.linalg and Gram + eigh."""

import pytest
import torch

import kdops
from benchmarks.harness import Problem, identify, measure, parametrise


def torch_svd(A):
    return torch.linalg.svd(A, full_matrices=False)


def top_by_svd(k):
    """What KD-SVD codes run: the whole SVD, of which k values and right vectors are used."""

    def decompose(A):
        _, S, Vh = torch.linalg.svd(A, full_matrices=False)
        return S[..., :k], Vh[..., :k, :]

    return decompose


def top_by_gram(k):
    """The best plain form: eigh of the Gram matrix on the small side."""

    def decompose(A):
        m, n = A.shape[-2:]
        gram = A.mT @ A if n <= m else A @ A.mT
        values, vectors = torch.linalg.eigh(gram)
        S = values[..., -k:].flip(-1).clamp_min(0).sqrt()
        top = vectors[..., -k:].flip(-1)
        if n <= m:
            return S, top.mT
        return S, (top.mT @ A) / S.unsqueeze(-1)

    return decompose


def top_by_kdops(k):
    def decompose(A):
        result = kdops.batched_svd(A, k, compute_u=False)
        return result.S, result.Vh

    return decompose


def projector(result):
    """S and the projectors on the right vectors: what no sign changes."""
    S, Vh = result[-2:]
    return S, Vh.mT @ Vh


def _matrices(m, n, batch=128):
    def make(generator, dtype, device):
        A = torch.randn(batch, m, n, generator=generator, dtype=torch.float64)
        return (A.to(device, dtype).requires_grad_(),)

    return make


def _separated(m, n, k, batch=128):
    """A feature map's spectrum: k + 4 directions that stand out of the noise."""

    def make(generator, dtype, device):
        A = torch.randn(batch, m, n, generator=generator, dtype=torch.float64)
        count = min(k + 4, m, n)
        left = torch.randn(batch, m, count, generator=generator, dtype=torch.float64)
        right = torch.randn(batch, count, n, generator=generator, dtype=torch.float64)
        strength = 3 * 0.7 ** torch.arange(count, dtype=torch.float64)
        return ((A + (left * strength) @ right).to(device, dtype).requires_grad_(),)

    return make


def _full(m, n, dtype):
    return Problem(
        op="svd",
        label=f"{m}x{n}",
        make=_matrices(m, n),
        providers={"torch.linalg.svd": torch_svd, "kdops": kdops.batched_svd},
        reference=torch_svd,
        invariant=lambda result: (result[1], (result[0] * result[1].unsqueeze(-2)) @ result[2]),
        dtype=dtype,
        modes=("forward", "both"),
        tolerance=1e-3 if dtype == torch.float32 else 1e-11,
    )


def _values(n, dtype):
    return Problem(
        op="svdvals",
        label=f"{n}x{n}",
        make=_matrices(n, n),
        providers={"torch.linalg.svdvals": torch.linalg.svdvals, "kdops": kdops.batched_svdvals},
        reference=torch.linalg.svdvals,
        dtype=dtype,
        modes=("forward",),
        tolerance=1e-4 if dtype == torch.float32 else 1e-12,
    )


def _top(m, n, dtype, k=4):
    return Problem(
        op="svd top 4, S and V",
        label=f"{m}x{n}",
        make=_separated(m, n, k),
        providers={
            "torch.linalg.svd": top_by_svd(k),
            "torch Gram + eigh": top_by_gram(k),
            "kdops": top_by_kdops(k),
        },
        reference=top_by_svd(k),
        invariant=projector,
        dtype=dtype,
        modes=("both",),
        tolerance=1e-2 if dtype == torch.float32 else 1e-9,
    )


DTYPES = (torch.float32, torch.float64)
SQUARE = [(n, n) for n in (8, 16, 32, 64, 128)]
TALL = [(64, 16), (256, 32), (1024, 16), (64, 256)]
TOP = [(1024, 16), (256, 32), (64, 64), (64, 256), (49, 512)]
PROBLEMS = [
    *[_full(m, n, dtype) for dtype in DTYPES for m, n in SQUARE + TALL],
    *[_values(n, dtype) for dtype in DTYPES for n in (32, 64)],
    *[_top(m, n, dtype) for dtype in DTYPES for m, n in TOP],
]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_svd(benchmark, problem, provider, mode, quick):
    measure(benchmark, problem, provider, mode, quick)
