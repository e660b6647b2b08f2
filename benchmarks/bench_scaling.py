"""Sweeps over one size at a time; the report fits the exponents of time and memory against size.

A form's `time` and `memory` are the exponents of its arithmetic and of what it stores, that a slope
at large sizes should approach; `limit` is the largest size it is run at (the published forms would
take minutes or not fit). The float64 reference is computed up to `checked`; beyond it a time is
reported without a speed-up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import kdops
from benchmarks.cases.shapes import matrices, normal, separated
from benchmarks.measure.problem import Problem, on_devices
from benchmarks.published import gram, rbf, relation, svd
from benchmarks.published.attention import attention_loss

BATCHES = [1, 4, 16, 64, 256, 1024, 4096]
SIZES = [3, 8, 16, 32, 64, 128]
ROWS = [32, 128, 512, 1024, 2048, 4096]
BUDGET = 0.6  # seconds of rounds per point: all sweeps together take under five minutes


@dataclass(frozen=True)
class Form:
    """One provider of a sweep: its function, exponents of time and memory, largest size."""

    function: Callable[..., Any]
    time: float
    memory: float
    limit: int = 4096


@dataclass(frozen=True)
class Sweep:
    """One op over one size. make(size): see cases/shapes.py. The last form is ours."""

    symbol: str
    sizes: list[int]
    make: Callable[[int], Callable[..., Any]]
    forms: dict[str, Form]
    reference: Callable[..., Any]
    mode: str = "both"
    invariant: Callable[[Any], Any] = lambda result: result
    checked: int = 1024


def _values(result):
    return result[1]


def _top(A):
    result = kdops.batched_svd(A, 4, compute_u=False)
    return result.S, result.Vh


def _rows(n):
    return normal((n, 128), (n, 128))


def _one(n):
    return normal((n, 128))


def _vectors(d):
    """Student and teacher, front and back: entries as small as those of singular vectors."""

    def make(generator, dtype, device):
        drawn = normal(*[(32, d, 4)] * 4, grad=2)(generator, dtype, device)
        with torch.no_grad():
            for v in drawn:
                v.mul_(0.5 * d**-0.5)
        return drawn

    return make


def _fsp(a, b, c, d):
    return kdops.fsp_loss((a, b), (c, d))


def _similarity(student, teacher):
    return relation.similarity(student, teacher).sum()


GAMMA = 1 / 128
SWEEPS = {
    "svd 16x16 over batch": Sweep(
        "B", BATCHES, lambda b: matrices(16, 16, b),
        {"published": Form(svd.full, 1, 1), "kdops": Form(kdops.batched_svd, 1, 1)},
        svd.full, "forward", _values,
    ),
    "svd n x n, batch 32": Sweep(
        "n", SIZES, lambda n: matrices(n, n, 32),
        {"published": Form(svd.full, 3, 2), "kdops": Form(kdops.batched_svd, 3, 2)},
        svd.full, "forward", _values,
    ),
    "svdvals n x n, batch 32": Sweep(
        "n", SIZES, lambda n: matrices(n, n, 32),
        {"published": Form(torch.linalg.svdvals, 3, 2), "kdops": Form(kdops.batched_svdvals, 3, 2)},
        torch.linalg.svdvals, "forward",
    ),
    "top 4 of 64x16 over batch": Sweep(
        "B", BATCHES, lambda b: separated(64, 16, 4, b),
        {
            "published": Form(svd.top_by_svd(4), 1, 1),
            "torch Gram + eigh": Form(svd.top_by_gram(4), 1, 1),
            "kdops": Form(_top, 1, 1),
        },
        svd.top_by_svd(4), invariant=svd.projectors,
    ),
    "top 4 of 2n x n, batch 32": Sweep(
        "n", SIZES[1:], lambda n: separated(2 * n, n, 4, 32),
        {
            "published": Form(svd.top_by_svd(4), 3, 2),
            "torch Gram + eigh": Form(svd.top_by_gram(4), 3, 2),
            "kdops": Form(_top, 3, 2),
        },
        svd.top_by_svd(4), invariant=svd.projectors,
    ),
    "gram (16,16; 8x8) over batch": Sweep(
        "B", BATCHES, lambda b: normal(*[(b, 16, 8, 8)] * 2, grad=2),
        {"published": Form(gram.fsp_bmm, 1, 1), "kdops": Form(kdops.gram, 1, 1)},
        gram.fsp_bmm,
    ),
    "fsp_loss (32; n,n; 8x8)": Sweep(
        "n", SIZES, lambda n: normal(*[(32, n, 8, 8)] * 4, grad=2),
        {"published": Form(gram.fsp_loss, 2, 2), "kdops": Form(_fsp, 2, 2)}, gram.fsp_loss,
    ),
    "nst_loss (16; n, 8x8)": Sweep(
        "n", SIZES, lambda n: normal(*[(16, n, 8, 8)] * 2),
        {
            "published": Form(gram.nst_broadcast, 2, 2),
            "torch GEMM": Form(gram.nst_gemm, 2, 2),
            "kdops": Form(kdops.nst_loss, 2, 2),
        },
        gram.nst_gemm,
    ),
    "attention_loss (16, 8x8) over batch": Sweep(
        "B", BATCHES, lambda b: normal(*[(b, 16, 8, 8)] * 2),
        {"published": Form(attention_loss, 1, 1), "kdops": Form(kdops.attention_loss, 1, 1)},
        attention_loss,
    ),
    "svd_rbf_loss (32; n,n; 4)": Sweep(
        "n", [8, 16, 32, 64, 128, 256], _vectors,
        {
            "published": Form(rbf.svd_rbf_broadcast, 2, 2),
            "torch GEMM": Form(rbf.svd_rbf_gemm, 2, 2),
            "kdops": Form(kdops.svd_rbf_loss, 1, 1),
        },
        rbf.svd_rbf_broadcast,
    ),
    "rkd_distance_loss over N": Sweep(
        "N", ROWS, _rows,
        {
            "published": Form(relation.rkd_distance, 2, 2),
            "kdops": Form(kdops.rkd_distance_loss, 2, 2),
        },
        relation.rkd_distance,
    ),
    "rkd_angle_loss over N": Sweep(
        "N", [32, 64, 128, 256, 512, 1024, 2048, 4096], _rows,
        {
            "published": Form(relation.rkd_angle, 3, 3, 256),
            "torch Gram": Form(relation.rkd_angle_gram, 3, 3, 256),
            "kdops": Form(kdops.rkd_angle_loss, 3, 2),
        },
        relation.rkd_angle_gram, checked=256,
    ),
    "similarity_loss over N": Sweep(
        "N", ROWS, _rows,
        {
            "published": Form(_similarity, 2, 2),
            "kdops": Form(kdops.similarity_loss, 2, 2),
        },
        _similarity,
    ),
    "pairwise_distance over N": Sweep(
        "N", ROWS, _one,
        {
            "published": Form(lambda x: torch.cdist(x, x), 2, 2),
            "kdops": Form(kdops.pairwise_distance, 2, 2),
        },
        kdops.ops.relation.reference.pairwise_distance,
    ),
    "rbf_affinity over N": Sweep(
        "N", ROWS, _one,
        {
            "published": Form(lambda x: rbf.rbf_broadcast(x, GAMMA), 2, 2, 1024),
            "torch GEMM": Form(lambda x: rbf.rbf_gemm(x, GAMMA), 2, 2),
            "kdops": Form(lambda x: kdops.rbf_affinity(x, gamma=GAMMA), 2, 2),
        },
        lambda x: rbf.rbf_gemm(x, GAMMA),
    ),
    "rbf_affinity_loss over N": Sweep(
        "N", ROWS, _rows,
        {
            "torch GEMM": Form(lambda s, t: rbf.affinity_loss_gemm(s, t, GAMMA), 2, 2),
            "kdops": Form(lambda s, t: kdops.rbf_affinity_loss(s, t, gamma=GAMMA), 2, 1),
        },
        lambda s, t: rbf.affinity_loss_gemm(s, t, GAMMA),
    ),
}  # fmt: skip


def _problem(name, size):
    sweep = SWEEPS[name]
    forms = {key: form for key, form in sweep.forms.items() if size <= form.limit}
    return Problem(
        op=f"scaling: {name}",
        label=f"{sweep.symbol}={size}",
        make=sweep.make(size),
        providers={key: form.function for key, form in forms.items()},
        reference=sweep.reference,
        invariant=sweep.invariant,
        modes=(sweep.mode,),
        tolerance=1e-2,
        slow=True,
        budget=BUDGET,
        check=size <= sweep.checked or sweep.symbol != "N",
        extra={
            "sweep": name,
            "size": size,
            "theory": {key: (form.time, form.memory) for key, form in forms.items()},
        },
    )


def _cases():
    for name, sweep in SWEEPS.items():
        for size in sweep.sizes:
            for problem in on_devices([_problem(name, size)]):
                for provider in problem.providers:
                    yield pytest.param(
                        problem, provider, sweep.mode, id=f"{problem.name}-{provider}"
                    )


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "provider", "mode"), list(_cases()))
def test_scaling(measured, problem, provider, mode):
    measured(problem, provider, mode)
