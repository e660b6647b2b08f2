"""Sweeps over one size at a time; the report fits the exponents of time against size.

theory: the exponent of the arithmetic, that a slope at large sizes should approach. Sizes where a
provider would take too long or store too much are left out for it; the float64 reference is
computed up to `checked`, and beyond it a time is reported without a speed-up.
"""

import pytest
import torch

import kdops
from benchmarks.cases import matrices, normal
from benchmarks.harness import Problem, measure
from benchmarks.published import relation
from benchmarks.published.svd import full


def _svd_batch(batch):
    return matrices(16, 16, batch)


def _svd_size(n):
    return matrices(n, n, 32)


def _rows(n):
    return normal((n, 128), (n, 128))


def _rbf(student, teacher):
    return kdops.rbf_affinity_loss(student, teacher, gamma=1 / 128)


def _rbf_plain(student, teacher):
    """Both N x N matrices by a GEMM each, stored for the gradient."""

    def affinity(x):
        square = x.square().sum(1)
        return torch.exp(-(square[:, None] + square - 2 * x @ x.T).clamp_min(0) / 128)

    return (affinity(student) - affinity(teacher)).square().mean()


# name: (size's symbol, theory, sizes, make, mode, plain, its largest size, ours, checked)
SWEEPS = {
    "svd 16x16 over batch": (
        "B", 1, [1, 4, 16, 64, 256, 1024, 4096], _svd_batch, "forward",
        full, 4096, kdops.batched_svd, 4096,
    ),
    "svd n x n, batch 32": (
        "n", 3, [3, 8, 16, 32, 48, 64, 96, 128], _svd_size, "forward",
        full, 128, kdops.batched_svd, 128,
    ),
    "rkd_distance_loss over N": (
        "N", 2, [32, 128, 512, 1024, 2048, 4096], _rows, "both",
        relation.rkd_distance, 4096, kdops.rkd_distance_loss, 2048,
    ),
    "rkd_angle_loss over N": (
        "N", 3, [32, 64, 128, 256, 512, 1024], _rows, "both",
        relation.rkd_angle, 256, kdops.rkd_angle_loss, 256,
    ),
    "rbf_affinity_loss over N": (
        "N", 2, [32, 128, 512, 1024, 2048, 4096], _rows, "both",
        _rbf_plain, 4096, _rbf, 2048,
    ),
}  # fmt: skip


def _problem(name, size, provider):
    symbol, theory, _, make, mode, plain, _, ours, checked = SWEEPS[name]
    both = {"published": plain, "kdops": ours}
    invariant = (lambda r: r[1]) if name.startswith("svd") else (lambda r: r)
    return Problem(
        op=f"scaling: {name}",
        label=f"{symbol}={size}",
        make=make(size),
        providers=both if provider == "both" else {"kdops": ours},
        reference=plain,
        invariant=invariant,
        modes=(mode,),
        tolerance=1e-2,
        check=size <= checked,
        extra={"sweep": name, "size": size, "theory": theory},
    )


def _cases():
    for name, (_, _, sizes, _, mode, _, limit, _, _) in SWEEPS.items():
        for size in sizes:
            problem = _problem(name, size, "both" if size <= limit else "kdops")
            for provider in problem.providers:
                yield pytest.param(problem, provider, mode, id=f"{name}-{size}-{provider}")


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "provider", "mode"), list(_cases()))
def test_scaling(benchmark, problem, provider, mode, quick):
    measure(benchmark, problem, provider, mode, quick)
