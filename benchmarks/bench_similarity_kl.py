"""similarity_kl_loss against the GEMM form and MiniLM's, pkt_loss against the published form."""

from functools import partial

import pytest
import torch

import kdops
from benchmarks.cases.shapes import normal
from benchmarks.measure.harness import identify, parametrise
from benchmarks.measure.problem import Problem, compiled, reference_backend
from benchmarks.published.similarity_kl import pkt, relation_kl_gemm, relation_kl_minilm
from kdops.ops.similarity_kl import pkt_loss

TAU = 0.1
TOLERANCE = 4e-5  # of value and gradient, as the contract has it


def _rows(n, width):
    ours = partial(kdops.similarity_kl_loss, temperature=TAU)
    gemm = partial(relation_kl_gemm, tau=TAU)
    main = n == 512
    compiles = {"torch.compile GEMM": compiled(gemm)} if main else {}
    return Problem(
        op="similarity_kl_loss",
        label=f"({n}, {width})",
        make=normal((n, width), (n, width)),
        providers={
            "torch GEMM": gemm,
            **compiles,
            **reference_backend(ours, main),
            "kdops": ours,
        },
        reference=gemm,
        tolerance=TOLERANCE,
        slow=not main,
    )


def _heads(batch, heads, tokens, width):
    ours = partial(kdops.similarity_kl_loss, similarity="dot")
    shape = (batch, heads, tokens, width)
    return Problem(
        op="similarity_kl_loss",
        label=f"MiniLM {shape}",
        make=normal(shape, shape),
        providers={"published": relation_kl_minilm, "kdops": ours},
        reference=relation_kl_minilm,
        dtype=torch.float32,
        tolerance=TOLERANCE,
    )


def _pkt(n, width):
    return Problem(
        op="pkt_loss",
        label=f"({n}, {width})",
        make=normal((n, width), (n, width)),
        providers={"published": pkt, "kdops": pkt_loss},
        reference=pkt,
        tolerance=TOLERANCE,
        slow=n > 1024,
    )


PROBLEMS = [
    *(_rows(n, 128) for n in (512, 4096)),
    _heads(4, 12, 128, 32),
    *(_pkt(n, 128) for n in (1024, 4096)),
]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_similarity_kl(measured, problem, provider, mode):
    measured(problem, provider, mode)
