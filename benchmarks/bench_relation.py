"""The RKD, similarity and pairwise ops against the published forms and torch.cdist."""

from dataclasses import replace

import pytest
import torch

import kdops
from benchmarks.cases import floors
from benchmarks.cases.shapes import BFLOAT16_TOLERANCE, DTYPES
from benchmarks.measure.harness import identify, parametrise
from benchmarks.measure.problem import MODES, Problem, compiled, reference_backend
from benchmarks.published import relation as published

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10, torch.bfloat16: BFLOAT16_TOLERANCE}


def _rows(n, d, teacher=True):
    def make(generator, dtype, device):
        x, t = (torch.randn(n, d, generator=generator).to(device, dtype) for _ in range(2))
        return (x.requires_grad_(), t) if teacher else (x.requires_grad_(),)

    return make


def _naive_similarity(student, teacher):
    s, t = (torch.nn.functional.normalize(x @ x.mT, dim=1) for x in (student, teacher))
    return (s - t).square().mean()


# ours, published, best plain forms, what runs in float64 as the truth (rows in general position)
LOSSES = {
    "rkd_angle_loss": (
        kdops.rkd_angle_loss,
        published.rkd_angle,
        {"torch Gram": published.rkd_angle_gram},
        published.rkd_angle_gram,
    ),
    "rkd_distance_loss": (
        kdops.rkd_distance_loss,
        published.rkd_distance,
        {"torch cdist": published.rkd_distance_cdist},
        published.rkd_distance,
    ),
    "similarity_loss": (
        kdops.similarity_loss,
        published.similarity,
        {"torch covariance": published.similarity_covariance},
        _naive_similarity,
    ),
}

COMPILED = {
    ("rkd_angle_loss", 128, torch.float32),
    ("rkd_distance_loss", 128, torch.float32),
    ("similarity_loss", 512, torch.float32),
}


def _loss(op, n, d, dtype=torch.float32):
    ours, theirs, plain, exact = LOSSES[op]
    if dtype == torch.bfloat16:
        plain = {}  # torch.cdist does not take it
    if (op, n, dtype) in COMPILED:
        name, best = next(iter(plain.items()))
        plain = {**plain, name.replace("torch", "torch.compile"): compiled(best)}
    if dtype == torch.float32 and n in (64, 512):
        plain = {**plain, **reference_backend(ours)}
    return Problem(
        op=op,
        label=f"N={n} D={d}",
        make=_rows(n, d),
        providers={"published": lambda s, t: theirs(s, t).sum(), **plain, "kdops": ours},
        reference=exact,
        floor=floors.angle(n, d, dtype.itemsize) if op == "rkd_angle_loss" else {},
        dtype=dtype,
        modes=MODES if n == 128 and dtype == torch.float32 else ("both",),
        slow_modes=("forward", "backward"),
        tolerance=TOLERANCE[dtype],
        slow=n > 128 or (dtype != torch.float32 and n != 128),
    )


def _large_angle(n):
    """Where the published form does not fit: on a GPU only, and not checked at the top."""
    problem = _loss("rkd_angle_loss", n, 512)
    ours = {"kdops": problem.providers["kdops"]}
    return replace(problem, device="cuda", providers=ours, check=n <= 1024)


def _distance(n, d, dtype=torch.float32):
    return Problem(
        op="pairwise_distance",
        label=f"N={n} D={d}",
        make=_rows(n, d, teacher=False),
        providers={
            "torch cdist": lambda x: torch.cdist(x, x),
            **reference_backend(kdops.pairwise_distance, n == 64),
            "kdops": kdops.pairwise_distance,
        },
        reference=kdops.ops.relation.reference.pairwise_distance,
        dtype=dtype,
        modes=MODES if n == 256 else ("forward", "both"),
        tolerance=TOLERANCE[dtype],
        slow=n > 256,
    )


PROBLEMS = [
    *(_loss("rkd_angle_loss", n, 512, t) for t in DTYPES for n in (64, 128, 256)),
    *(_loss("rkd_distance_loss", n, 512, t) for t in DTYPES for n in (64, 128, 256, 512)),
    *(_loss("similarity_loss", 512, 128, t) for t in DTYPES),
    *(_distance(n, 512) for n in (64, 256, 512)),
    *(_loss(op, 128, 512, torch.bfloat16) for op in ("rkd_angle_loss", "rkd_distance_loss")),
    *(_large_angle(n) for n in (1024, 4096)),
]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_relation(measured, problem, provider, mode):
    measured(problem, provider, mode)
