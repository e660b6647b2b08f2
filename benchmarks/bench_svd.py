"""The svd room: decompositions, values and top-k gradient, against torch.linalg."""

from functools import partial

import pytest
import torch

import kdops
from benchmarks.cases import floors
from benchmarks.cases.shapes import BATCH, DTYPES, SQUARE, TALL, TOP, matrices, separated
from benchmarks.measure.harness import identify, parametrise
from benchmarks.measure.problem import MODES, Problem, compiled, reference_backend
from benchmarks.published.svd import (
    full,
    full_by_gram,
    nuclear_norm,
    polar,
    polar_by_gram,
    projectors,
    top_by_gram,
    top_by_svd,
    values_by_gram,
)

QUICK = {(16, 16), (256, 32)}
BACKWARD = {(256, 32), (49, 512)}  # sizes whose backward is timed by itself, too


def _kdops_top(k):
    def decompose(A):
        result = kdops.batched_svd(A, k, compute_u=False)
        return result.S, result.Vh

    return decompose


# torch's cuSOLVER drivers; its default is one of them
DRIVERS = {
    f"torch {name}": partial(torch.linalg.svd, full_matrices=False, driver=name)
    for name in ("gesvd", "gesvdj", "gesvda")
}


def _cupy():
    """CuPy's batched eigh (cusolverDnXsyevBatched in its newer versions), where it is installed."""
    try:
        import cupy
    except ImportError:
        return {}

    def eigh(A):
        return [torch.from_dlpack(x) for x in cupy.linalg.eigh(cupy.from_dlpack(A.mT @ A))]

    def full(A):
        values, vectors = eigh(A)
        S, V = values.flip(-1).clamp_min(0).sqrt(), vectors.flip(-1)
        return (A @ V) / S.unsqueeze(-2), S, V.mT

    return {"CuPy Gram + eigh": full}


def _full(m, n, dtype):
    return Problem(
        op="svd",
        label=f"{m}x{n}",
        make=matrices(m, n),
        providers={
            "torch.linalg.svd": full,
            "torch Gram + eigh": full_by_gram,
            **reference_backend(kdops.batched_svd, (m, n) == (16, 16) and dtype == torch.float32),
            "kdops": kdops.batched_svd,
        },
        reference=full,
        on_cuda={**DRIVERS, **_cupy()},
        floor=floors.svd(m, n, BATCH, dtype.itemsize),
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
        modes=MODES,
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
        providers={
            "torch.linalg.svdvals": torch.linalg.svdvals,
            "torch Gram + eigvalsh": values_by_gram,
            **reference_backend(kdops.batched_svdvals, n == 32 and dtype == torch.float32),
            "kdops": kdops.batched_svdvals,
        },
        reference=torch.linalg.svdvals,
        dtype=dtype,
        modes=("forward",),
        tolerance=1e-4 if dtype == torch.float32 else 1e-12,
        slow=n > 32 or dtype == torch.float64,
    )


def _top(m, n, dtype, k=4, device="cpu"):
    main = (m, n) in BACKWARD and dtype == torch.float32
    return Problem(
        op=f"svd top {k}, S and V",
        label=f"{m}x{n}",
        make=separated(m, n, k),
        providers={
            "torch.linalg.svd": top_by_svd(k),
            "torch Gram + eigh": top_by_gram(k),
            **({"torch.compile Gram": compiled(top_by_gram(k))} if (m, n) == (256, 32) else {}),
            **reference_backend(_kdops_top(k), (m, n) == (256, 32) and dtype == torch.float32),
            "kdops": _kdops_top(k),
        },
        reference=top_by_svd(k),
        invariant=projectors,
        floor=floors.top(m, n, k, BATCH, dtype.itemsize),
        dtype=dtype,
        device=device,
        modes=MODES if main else ("forward", "both"),
        tolerance=5e-3 if dtype == torch.float32 else 1e-9,
        slow=(m, n) not in QUICK or dtype == torch.float64,
    )


def _polar(m, n, dtype):
    main = (m, n) in {(32, 32), (256, 32)}
    return Problem(
        op="polar",
        label=f"{m}x{n}",
        make=matrices(m, n),
        providers={
            "torch.linalg.svd": polar,
            **({"torch Gram + eigh": polar_by_gram} if m > n else {}),
            **reference_backend(kdops.batched_polar, (m, n) == (32, 32)),
            "kdops": kdops.batched_polar,
        },
        reference=polar,
        dtype=dtype,
        modes=("forward", "both"),
        tolerance=5e-3 if dtype == torch.float32 else 1e-9,
        slow=not main or dtype == torch.float64,
    )


def _nuclear(m, n, dtype):
    return Problem(
        op="nuclear norm",
        label=f"{m}x{n}",
        make=matrices(m, n),
        providers={
            'torch.linalg.matrix_norm(ord="nuc")': nuclear_norm,
            "kdops": kdops.batched_nuclear_norm,
        },
        reference=nuclear_norm,
        dtype=dtype,
        modes=("forward", "both"),
        tolerance=1e-3 if dtype == torch.float32 else 1e-10,
        slow=(m, n) != (32, 32) or dtype == torch.float64,
    )


POLAR = ((16, 16), (32, 32), (64, 64), (256, 32), (49, 512), (160, 160))

PROBLEMS = [
    *[_full(m, n, dtype) for dtype in DTYPES for m, n in SQUARE + TALL],
    *[_gradient(m, n, torch.float32) for m, n in ((32, 32), (256, 32))],
    *[_values(n, dtype) for dtype in DTYPES for n in (32, 64)],
    *[_top(m, n, dtype) for dtype in DTYPES for m, n in TOP],
    _top(196, 256, torch.float32, device="cuda"),
    *[form(m, n, dtype) for form in (_polar, _nuclear) for dtype in DTYPES for m, n in POLAR],
]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_svd(measured, problem, provider, mode):
    measured(problem, provider, mode)
