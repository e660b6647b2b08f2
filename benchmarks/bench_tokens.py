"""Tokens read where they lie against the same numbers as maps: loss and gradient of a method on two
levels, both layouts in turn within rounds. The bar is 5 %: tokens are to cost what maps do."""

import pytest
import torch

from benchmarks.measure import clock, paired
from kdops import distillers
from kdops.testing import relative_error

BATCH, CHANNELS, SIDE = 32, 384, 14
METHODS = ("KDSVD", "FSP", "NST", "AttentionTransfer")
PROVIDERS = ("maps", "kdops")  # the latter: tokens
BUDGET, LEAST, MOST = 20.0, 5, 25
TOLERANCE = 1e-3


def _levels(seed, tokens):
    """Student's and teacher's, leaves as a network would hand them over."""
    generator = torch.Generator().manual_seed(seed)
    shape = BATCH, CHANNELS, SIDE, SIDE
    maps = [torch.randn(shape, generator=generator) for _ in range(4)]
    if tokens:
        maps = [x.flatten(2).mT.contiguous() for x in maps]
    return [x.requires_grad_() for x in maps[:2]], maps[2:]


def _step(method, student, teacher):
    loss = method(student, teacher)
    return loss.detach(), torch.autograd.grad(loss, student)


def _method(name, provider):
    return getattr(distillers, name)(layout="tokens" if provider == "kdops" else None)


@pytest.fixture(scope="module")
def timed():
    """Method -> Timed of both layouts, measured once."""
    return {}


def _measure(name):
    def run(provider):
        method = _method(name, provider)
        return paired.Run(_step, lambda seed: (method, *_levels(seed, provider == "kdops")))

    runs = {provider: run(provider) for provider in PROVIDERS}
    return paired.measure(runs, "cpu", BUDGET, LEAST, MOST)


def _difference(name):
    """Of the two layouts' losses and gradients, relative."""
    results = [_step(_method(name, p), *_levels(0, p == "kdops")) for p in PROVIDERS]
    (loss, gradients), (ours, of_tokens) = results
    pairs = [
        (ours, loss),
        *((t.mT, m.flatten(2)) for t, m in zip(of_tokens, gradients, strict=True)),
    ]
    return max(float(relative_error(a, b)) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", METHODS)
def test_tokens(benchmark, timed, name, provider):
    error = _difference(name)
    label = f"{name} ({BATCH}; {SIDE * SIDE} of {CHANNELS})"
    benchmark.group = f"tokens {label} float32 both"
    benchmark.extra_info.update(
        op="tokens", label=label, dtype="float32", mode="both", device="cpu", slow=True,
        provider=provider, baseline="maps", error=error, tolerance=TOLERANCE,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    assert error <= TOLERANCE, f"{name}: the layouts differ by {error:.3g}"
    if name not in timed:
        timed[name] = _measure(name)
    result = timed[name][provider]
    if result.failure is not None:
        raise result.failure
    benchmark.extra_info["peak_mb"] = result.peak_mb
    benchmark.extra_info["durations"] = [round(seconds, 5) for seconds in result.durations]
    clock.replay(benchmark, result.durations)
