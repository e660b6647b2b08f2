"""gram, fsp_loss and nst_loss against bmm, einsum and the published broadcast form."""

import pytest
import torch

import kdops
from benchmarks.cases.shapes import BATCH, BFLOAT16_TOLERANCE, DTYPES, FSP, MAPS, normal
from benchmarks.measure.harness import identify, parametrise
from benchmarks.measure.problem import MODES, Problem, compiled, reference_backend
from benchmarks.published.gram import fsp_bmm, fsp_loss, fsp_loss_fused, nst_broadcast, nst_gemm


def _maps(batch, c1, c2, side):
    def make(generator, dtype, device):
        shapes = [(batch, c, *side) for c in (c1, c2)]
        return tuple(
            torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes
        )

    return make


TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: BFLOAT16_TOLERANCE}
LOSS_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11, torch.bfloat16: BFLOAT16_TOLERANCE}


def _fsp_pairs(a, b, c, d):
    return kdops.fsp_loss((a, b), (c, d))


def _einsum(x, y):
    return torch.einsum("bi...,bj...->bij", x, y) / x[0, 0].numel()


def _problem(batch, c1, c2, side, dtype=torch.float32):
    main = c1 == 64 and dtype == torch.float32
    return Problem(
        op="gram",
        label=f"({batch}; {c1},{c2}; {'x'.join(map(str, side))})",
        make=_maps(batch, c1, c2, side),
        providers={
            "torch bmm": fsp_bmm,
            "torch einsum": _einsum,
            **({"torch.compile bmm": compiled(fsp_bmm)} if main else {}),
            **reference_backend(kdops.gram, c1 == 16 and dtype == torch.float32),
            "kdops": kdops.gram,
        },
        reference=_einsum,
        dtype=dtype,
        modes=MODES if main else ("forward", "both"),
        tolerance=TOLERANCE[dtype],
        slow=c1 not in (16, 64) or dtype != torch.float32,
    )


def _fsp_loss(side, c1, c2, dtype):
    maps = [(BATCH, c, *side) for c in (c1, c2, c1, c2)]
    plain = {"torch bmm": fsp_loss, "torch baddbmm": fsp_loss_fused}
    main = c1 == 256 and dtype == torch.float32
    if main:
        plain["torch.compile bmm"] = compiled(fsp_loss)
    return Problem(
        op="fsp_loss",
        label=f"({BATCH}; {c1},{c2}; {'x'.join(map(str, side))})",
        make=normal(*maps, grad=2),
        providers={
            **plain,
            **reference_backend(_fsp_pairs, c1 == 16 and dtype == torch.float32),
            "kdops": _fsp_pairs,
        },
        reference=fsp_loss,
        dtype=dtype,
        modes=MODES if main else ("both",),
        tolerance=LOSS_TOLERANCE[dtype],
        slow=c1 != 16 or dtype != torch.float32,
    )


def _nst_loss(shape, dtype, batch=BATCH):
    c, h, w = shape
    products = batch * c * c * h * w * (4 if dtype == torch.float32 else 8)  # bytes, one kernel
    published = {"published broadcast": nst_broadcast} if products < 3e9 else {}
    plain = {"torch GEMM": nst_gemm}
    main = shape == MAPS[1] and dtype == torch.float32
    if main:
        plain["torch.compile GEMM"] = compiled(nst_gemm)
    return Problem(
        op="nst_loss",
        label=f"({batch}; {c}, {h}x{w})",
        make=normal((batch, *shape), (batch, *shape)),
        providers={
            **published,
            **plain,
            **reference_backend(kdops.nst_loss, shape == MAPS[0]),
            "kdops": kdops.nst_loss,
        },
        reference=nst_gemm,
        dtype=dtype,
        modes=MODES if main else ("both",),
        tolerance=1e-3 if dtype == torch.float32 else 1e-10,
        slow=shape != MAPS[0],
    )


PROBLEMS = [
    _problem(128, 16, 16, (32, 32)),
    _problem(128, 64, 64, (16, 16)),
    _problem(128, 256, 256, (8, 8)),
    _problem(128, 16, 16, (32, 32), torch.float64),
    _problem(128, 64, 64, (16, 16), torch.bfloat16),
    *[_fsp_loss(*case, dtype) for dtype in DTYPES for case in FSP],
    _fsp_loss(*FSP[1], torch.bfloat16),
    _nst_loss(MAPS[0], torch.float32),
    *[_nst_loss(MAPS[1], dtype, batch=64) for dtype in DTYPES],
    _nst_loss(MAPS[2], torch.float32),
]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_gram(measured, problem, provider, mode):
    measured(problem, provider, mode)
