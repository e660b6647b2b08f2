"""One training iteration per method, in plain PyTorch and with kdops (measure/iteration.py), and of
ImageNet-size networks what kdops adds to it (measure/large.py): `-k large`."""

from itertools import product

import pytest
import torch

from benchmarks.cases import models
from benchmarks.measure import clock, large
from benchmarks.measure.iteration import ROWS, SIDES, TOLERANCE, Pairs, agreement

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(scope="module")
def pairs():
    """One object for all cases of the run: the rows of a pair are timed together."""
    return Pairs()


def _record(benchmark, pair, device, batch, method, side, error):
    place = "" if device == "cpu" else f" {device}"
    benchmark.group = f"iteration {pair} batch {batch}{place} {method}"
    benchmark.extra_info.update(
        op="iteration", label=f"{pair}, batch {batch}{place}", dtype="float32", mode="iteration",
        batch=batch, device=device, slow=not _is_quick(pair, method),
        method=method, provider=side, baseline="published", error=error, tolerance=TOLERANCE,
        threads=torch.get_num_threads(),
    )  # fmt: skip


def _is_quick(pair, method):
    return pair == "ResNet32-ResNet8" and method in ("SoftTarget", "KD-SVD")


def _cases(names):
    """All of a pair next to each other, so that its nets are made once; both sides in turn."""
    for pair, device in product(models.PAIRS, DEVICES):
        for name, side in product(names, SIDES):
            quick = _is_quick(pair, name)
            yield pytest.param(pair, device, name, side, marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize(("pair", "device", "method", "side"), list(_cases(ROWS)))
def test_iteration(benchmark, request, pairs, pair, device, method, side, quick):
    state = pairs.setting(pair, device)
    error = agreement(state, method)
    _record(benchmark, pair, device, state.batch, method, side, error)
    if error is not None:
        assert error <= TOLERANCE, f"{method}: the two sides' losses differ by {error:.3g}"
    timed = pairs.timed(pair, device, selected(request), quick)[method, side]
    if timed.failure is not None:
        raise timed.failure
    benchmark.extra_info["peak_mb"] = timed.peak_mb
    benchmark.extra_info["durations"] = [round(seconds, 5) for seconds in timed.durations]
    clock.replay(benchmark, timed.durations)


def selected(request):
    """The (method, side) of this session's cases that have this case's pair and device."""
    function, here = request.node.function, request.node.callspec.params
    cases = [
        item.callspec.params
        for item in request.session.items
        if getattr(item, "function", None) is function
    ]
    same = [c for c in cases if all(c[name] == here[name] for name in ("pair", "device"))]
    return [(c["method"], c["side"]) for c in same]


@pytest.fixture(scope="module")
def large_pairs():
    return large.Pairs()


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "row"), list(product(models.LARGE, large.ROWS)))
def test_large_iteration(benchmark, request, large_pairs, pair, row):
    state = large_pairs.setting(pair)
    error = large.error(state, row)
    label = f"{pair}, batch {large.BATCH}"
    benchmark.group = f"large iteration {label} {row}"
    benchmark.extra_info.update(
        op="large iteration", label=label, dtype="float32", mode=row, device="cpu", slow=True,
        provider="kdops", baseline="kdops", error=error, tolerance=large.TOLERANCE, row=row,
        threads=torch.get_num_threads(), maps_mb=round(state.maps_mb, 2),
    )  # fmt: skip
    if error is not None:
        assert error <= large.TOLERANCE, f"{row}: the loss is off by {error:.3g}"
    timed = large_pairs.timed(pair, [r for p, r in _selected_large(request) if p == pair])[row]
    if timed.failure is not None:
        raise timed.failure
    benchmark.extra_info["peak_mb"] = timed.peak_mb
    benchmark.extra_info["durations"] = [round(seconds, 5) for seconds in timed.durations]
    clock.replay(benchmark, timed.durations)


def _selected_large(request):
    """The (pair, row) of this session's cases."""
    function = request.node.function
    items = [i for i in request.session.items if getattr(i, "function", None) is function]
    return [(i.callspec.params["pair"], i.callspec.params["row"]) for i in items]
