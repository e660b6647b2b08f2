"""batched_svd, batched_svdvals and the top-k gradient against torch.linalg and Gram + eigh."""

import pytest
import torch

import kdops
from benchmarks.cases import DTYPES, SQUARE, TALL, TOP, matrices, separated
from benchmarks.harness import Problem, compiled, identify, measure, parametrise
from benchmarks.published.svd import full, projectors, top_by_gram, top_by_svd

QUICK = {(16, 16), (256, 32)}


def _kdops_top(k):
    def decompose(A):
        result = kdops.batched_svd(A, k, compute_u=False)
        return result.S, result.Vh

    return decompose


def _full(m, n, dtype):
    return Problem(
        op="svd",
        label=f"{m}x{n}",
        make=matrices(m, n),
        providers={"torch.linalg.svd": full, "kdops": kdops.batched_svd},
        reference=full,
        invariant=lambda result: (result[1], (result[0] * result[1].unsqueeze(-2)) @ result[2]),
        dtype=dtype,
        modes=("forward",),
        tolerance=1e-4 if dtype == torch.float32 else 1e-11,
        slow=(m, n) not in QUICK or dtype == torch.float64,
    )


def _gradient(m, n, dtype):
    """Forward and backward of the whole decomposition, by a loss that is free of the gauge.

    A full random cotangent on U and V measures the conditioning of the input (1/gap), not the
    implementation, so the accuracy is that of S and of U S Vh; the time is of the same pass.
    """
    return Problem(
        op="svd, S and product",
        label=f"{m}x{n}",
        make=matrices(m, n),
        providers={
            "torch.linalg.svd": _product(full),
            "kdops": _product(kdops.batched_svd),
        },
        reference=_product(full),
        dtype=dtype,
        tolerance=1e-3 if dtype == torch.float32 else 1e-10,
        slow=True,
    )


def _product(function):
    def call(A):
        U, S, Vh = function(A)
        return S, (U * S.unsqueeze(-2)) @ Vh

    return call


def _values(n, dtype):
    return Problem(
        op="svdvals",
        label=f"{n}x{n}",
        make=matrices(n, n),
        providers={"torch.linalg.svdvals": torch.linalg.svdvals, "kdops": kdops.batched_svdvals},
        reference=torch.linalg.svdvals,
        dtype=dtype,
        modes=("forward",),
        tolerance=1e-4 if dtype == torch.float32 else 1e-12,
        slow=n > 32 or dtype == torch.float64,
    )


def _top(m, n, dtype, k=4):
    return Problem(
        op=f"svd top {k}, S and V",
        label=f"{m}x{n}",
        make=separated(m, n, k),
        providers={
            "torch.linalg.svd": top_by_svd(k),
            "torch Gram + eigh": top_by_gram(k),
            **({"torch.compile Gram": compiled(top_by_gram(k))} if (m, n) == (256, 32) else {}),
            "kdops": _kdops_top(k),
        },
        reference=top_by_svd(k),
        invariant=projectors,
        dtype=dtype,
        modes=("forward", "both"),
        tolerance=5e-3 if dtype == torch.float32 else 1e-9,
        slow=(m, n) not in QUICK or dtype == torch.float64,
    )


PROBLEMS = [
    *[_full(m, n, dtype) for dtype in DTYPES for m, n in SQUARE + TALL],
    *[_gradient(m, n, torch.float32) for m, n in ((32, 32), (256, 32))],
    *[_values(n, dtype) for dtype in DTYPES for n in (32, 64)],
    *[_top(m, n, dtype) for dtype in DTYPES for m, n in TOP],
]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_svd(benchmark, problem, provider, mode, quick):
    measure(benchmark, problem, provider, mode, quick)
