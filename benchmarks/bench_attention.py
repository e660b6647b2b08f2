"""attention_loss (attention transfer) against the form of the published code."""

import pytest
import torch

import kdops
from benchmarks.cases.shapes import BATCH, DTYPES, normal
from benchmarks.measure.harness import identify, parametrise
from benchmarks.measure.problem import MODES, Problem, compiled, reference_backend
from benchmarks.published.attention import attention_loss

LEVELS = [(64, 32, 32), (256, 8, 8), (512, 7, 7)]


def _problem(shape, dtype):
    plain = {"published": attention_loss}
    main = shape == LEVELS[1] and dtype == torch.float32
    if main:
        plain["torch.compile"] = compiled(attention_loss)
        plain |= reference_backend(kdops.attention_loss)
    c, h, w = shape
    return Problem(
        op="attention_loss",
        label=f"({BATCH}; {c}, {h}x{w})",
        make=normal((BATCH, *shape), (BATCH, *shape)),
        providers={**plain, "kdops": kdops.attention_loss},
        reference=attention_loss,
        dtype=dtype,
        modes=MODES if main else ("both",),
        slow_modes=("forward", "backward"),
        tolerance=1e-4 if dtype == torch.float32 else 1e-11,
        slow=shape != LEVELS[1] or dtype == torch.float64,
    )


PROBLEMS = [_problem(shape, dtype) for dtype in DTYPES for shape in LEVELS]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_attention(measured, problem, provider, mode):
    measured(problem, provider, mode)
