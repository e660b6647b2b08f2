"""Cost of a call itself: ops on tiny inputs, where the arithmetic is nothing.

A round is many calls; the record says how many, and the report divides.
"""

from functools import cache, partial

import pytest
import torch

import kdops
from benchmarks.measure import clock, paired
from benchmarks.published.align import aligned
from benchmarks.published.attention import attention_loss
from benchmarks.published.relation import rkd_distance
from kdops.testing import relative_error

CALLS = 200
TOLERANCE = 1e-5
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
TINY = {
    "batched_svd": ((1, 4, 4), 1, kdops.batched_svd, torch.linalg.svd),
    "align_singular_vectors": ((1, 4, 2), 2, kdops.align_singular_vectors, aligned),
    "gram": ((1, 2, 2, 2), 2, kdops.gram, lambda x, y: x.flatten(2) @ y.flatten(2).mT / 4),
    "rbf_affinity": ((4, 2), 1, kdops.rbf_affinity, lambda x: torch.exp(-(torch.cdist(x, x) ** 2))),
    "rkd_distance_loss": ((4, 2), 2, kdops.rkd_distance_loss, rkd_distance),
    "attention_loss": ((1, 2, 2, 2), 2, kdops.attention_loss, attention_loss),
}


def calls(function, grad, inputs):
    with torch.set_grad_enabled(grad):
        for arguments in inputs:
            function(*arguments)


def _difference(ours, plain, inputs):
    """Relative, of the values; of an SVD the singular values."""
    pair = [f(*inputs) for f in (ours, plain)]
    a, b = (result if torch.is_tensor(result) else result[1] for result in pair)
    return relative_error(a, b)


@pytest.fixture(scope="module")
def timings():
    """timings(op, device, grad) -> provider -> Timed; the first case of a pair times both."""
    return cache(_timings)


def _timings(op, device, grad):
    """Both providers in turn: one after the other, a change of the machine's mood is a ratio."""
    shape, count, ours, plain = TINY[op]

    def arguments(function, seed):
        generator = torch.Generator().manual_seed(seed)
        inputs = [
            [
                torch.randn(shape, generator=generator).to(device).requires_grad_(grad)
                for _ in range(count)
            ]
            for _ in range(CALLS)
        ]
        if device == "cuda":  # what is timed is the host's share of a launch
            torch.cuda.synchronize()
        return function, grad, inputs

    functions = {"torch": plain, "kdops": ours}
    runs = {n: paired.Run(calls, partial(arguments, f)) for n, f in functions.items()}
    return paired.measure(runs, "cpu", budget=1.0, least=7, most=21)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", TINY)
@pytest.mark.parametrize("grad", [False, True], ids=["no grad", "with grad"])
@pytest.mark.parametrize("provider", ["torch", "kdops"])
def test_overhead(benchmark, timings, device, op, grad, provider):
    shape, count, ours, plain = TINY[op]
    mode = "forward, graph kept" if grad else "forward"
    error = _difference(ours, plain, [torch.randn(shape, device=device) for _ in range(count)])
    assert error <= TOLERANCE, f"kdops and torch differ by {error:.3g}"
    benchmark.group = f"overhead {op} {mode}" + ("" if device == "cpu" else f" {device}")
    benchmark.extra_info.update(
        op="overhead", label=op, dtype="float32", mode=mode, provider=provider, baseline="torch",
        error=error, tolerance=TOLERANCE, calls=CALLS, device=device, slow=False,
        threads=torch.get_num_threads(),
    )  # fmt: skip

    timed = timings(op, device, grad)[provider]
    if timed.failure is not None:
        raise timed.failure
    clock.replay(benchmark, timed.durations)
