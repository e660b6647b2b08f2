"""svd_rbf_loss, rbf_affinity and rbf_affinity_loss against the published and the GEMM forms."""

from functools import partial

import pytest
import torch

import kdops
from benchmarks.measure.harness import identify, parametrise
from benchmarks.measure.problem import MODES, Problem, compiled, reference_backend
from benchmarks.published.rbf import (
    affinity_loss_gemm,
    rbf_broadcast,
    rbf_cdist,
    rbf_gemm,
    svd_rbf_broadcast,
    svd_rbf_gemm,
)
from kdops.ops.rbf import reference

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def _vectors(batch, front, back, k, orthonormal):
    """Student and teacher: singular vectors (orthonormal columns) or standard normal values."""

    def make(generator, dtype, device):
        drawn = [
            torch.randn(batch, d, k, generator=generator, dtype=torch.float64)
            for d in (front, back, front, back)
        ]
        if orthonormal:
            drawn = [torch.linalg.qr(v)[0].contiguous() for v in drawn]
        sf, sb, tf, tb = (v.to(device, dtype) for v in drawn)
        return sf.requires_grad_(), sb.requires_grad_(), tf, tb

    return make


def _svd(front, back, dtype=torch.float32, orthonormal=True):
    # a power series, right for entries up to one
    plain = {"torch GEMM": svd_rbf_gemm} if orthonormal else {}
    main = front == 64 and orthonormal and dtype == torch.float32
    if main:
        plain["torch.compile GEMM"] = compiled(svd_rbf_gemm)
        plain |= reference_backend(kdops.svd_rbf_loss)
    return Problem(
        op="svd_rbf_loss",
        label=f"(128; {front},{back}; 4) {'vectors' if orthonormal else 'normal'}",
        make=_vectors(128, front, back, 4, orthonormal),
        providers={"published": svd_rbf_broadcast, **plain, "kdops": kdops.svd_rbf_loss},
        reference=lambda *vectors: reference.svd_rbf_loss(*vectors, 8.0, reference.MEAN),
        dtype=dtype,
        modes=MODES if main else ("both",),
        slow_modes=("forward", "backward"),
        tolerance=TOLERANCE[dtype],
        slow=front != 64 or dtype == torch.float64,
    )


def _rows(n, width, count):
    def make(generator, dtype, device):
        rows = [torch.randn(n, width, generator=generator).to(device, dtype) for _ in range(count)]
        return rows[0].requires_grad_(), *rows[1:]

    return make


def _affinity(n, width, dtype=torch.float32, device="cpu"):
    gamma = 1 / width
    ours = partial(kdops.rbf_affinity, gamma=gamma)
    main = n == 512 and dtype == torch.float32
    compiles = {"torch.compile GEMM": compiled(partial(rbf_gemm, gamma=gamma))} if main else {}
    return Problem(
        op="rbf_affinity",
        label=f"({n}, {width})",
        make=_rows(n, width, 1),
        providers={
            "published": lambda x: rbf_broadcast(x, gamma),
            "torch cdist": lambda x: rbf_cdist(x, gamma),
            "torch GEMM": lambda x: rbf_gemm(x, gamma),
            **compiles,
            **reference_backend(ours, dtype == torch.float32),
            "kdops": ours,
        },
        reference=lambda x: reference.rbf_affinity(x, None, gamma),
        dtype=dtype,
        device=device,
        modes=MODES if main else ("both",),
        slow_modes=("forward", "backward"),
        tolerance=TOLERANCE[dtype],
    )


def _affinity_loss(n, width, dtype=torch.float32):
    gamma = 1 / width
    ours = partial(kdops.rbf_affinity_loss, gamma=gamma)
    return Problem(
        op="rbf_affinity_loss",
        label=f"({n}, {width})",
        make=_rows(n, width, 2),
        providers={
            "torch GEMM": lambda s, t: affinity_loss_gemm(s, t, gamma),
            **reference_backend(ours),
            "kdops": ours,
        },
        reference=lambda s, t: reference.rbf_affinity_loss(s, t, gamma),
        dtype=dtype,
        tolerance=TOLERANCE[dtype],
    )


PROBLEMS = [
    _svd(64, 256),
    _svd(256, 256),
    _svd(64, 256, orthonormal=False),
    _svd(64, 256, torch.float64),
    _svd(256, 256, torch.float64),
    _affinity(512, 128),
    _affinity(512, 128, torch.float64),
    _affinity(4096, 512, device="cuda"),
    _affinity_loss(512, 128),
]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_rbf(measured, problem, provider, mode):
    measured(problem, provider, mode)
