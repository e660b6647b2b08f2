"""gram and fsp_matrix against the published bmm form and the einsum form."""

import pytest
import torch

import kdops
from benchmarks.harness import Problem, identify, measure, parametrise
from benchmarks.published.gram import fsp_bmm


def _maps(batch, c1, c2, side):
    def make(generator, dtype, device):
        shapes = [(batch, c, *side) for c in (c1, c2)]
        return tuple(
            torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes
        )

    return make


def _problem(batch, c1, c2, side, dtype=torch.float32):
    return Problem(
        op="gram",
        label=f"({batch}; {c1},{c2}; {'x'.join(map(str, side))})",
        make=_maps(batch, c1, c2, side),
        providers={
            "torch bmm": fsp_bmm,
            "torch einsum": lambda x, y: torch.einsum("bi...,bj...->bij", x, y) / x[0, 0].numel(),
            "kdops": kdops.gram,
        },
        reference=lambda x, y: torch.einsum("bi...,bj...->bij", x, y) / x[0, 0].numel(),
        dtype=dtype,
        modes=("forward", "both"),
        tolerance=1e-5 if dtype == torch.float32 else 1e-12,
    )


PROBLEMS = [
    _problem(128, 16, 16, (32, 32)),
    _problem(128, 64, 64, (16, 16)),
    _problem(128, 256, 256, (8, 8)),
    _problem(128, 512, 512, (7, 7)),
    _problem(128, 16, 16, (32, 32), torch.float64),
]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_gram(benchmark, problem, provider, mode, quick):
    measure(benchmark, problem, provider, mode, quick)
