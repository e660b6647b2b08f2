"""How the benchmarks measure: rounds, peak memory, plain forms that are compared with."""

import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.cases import shapes
from benchmarks.measure import gpu, harness, memory, paired
from benchmarks.measure.problem import MODES, Problem, on_devices


@pytest.mark.parametrize(
    ("call", "setup", "quick", "expected"),
    [
        (1e-4, 1e-4, False, 21),
        (0.1, 0.1, False, 10),
        (0.1, 0.9, False, 3),  # making the inputs counts
        (2.0, 0.1, False, 2),
        (9.0, 0.1, False, 1),
        (1e-4, 1e-4, True, 5),
        (0.3, 0.0, True, 3),
    ],
)
def test_rounds_fit_the_budget(call, setup, quick, expected):
    assert harness.rounds_for(call, setup, quick, 2.0) == expected


def _use(megabytes):
    return lambda: torch.ones(megabytes << 18).sum()


def test_peak_memory_is_that_of_the_call():
    if memory.peak_mb(_use(1)) is None:
        pytest.skip("this system does not tell a peak")
    for size in (200, 40, 90):  # a large call before must not hide a small one
        assert memory.peak_mb(_use(size)) == pytest.approx(size, abs=8)


def test_peak_memory_leaves_no_threads():
    """A pool of OpenMP threads kept for the measurement made every later call slower."""
    if memory.peak_mb(_use(1)) is None:
        pytest.skip("this system does not tell a peak")
    tasks, threads = Path("/proc/self/task"), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        time.sleep(0.2)  # threads of earlier calls may still be ending
        before = len(list(tasks.iterdir()))
        inside = []

        def call():
            torch.set_num_threads(2)  # a setting of each thread
            _use(8)()
            inside.append(len(list(tasks.iterdir())))

        memory.peak_mb(call)
        deadline = time.monotonic() + 5
        while len(list(tasks.iterdir())) > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert inside[0] > before
        assert len(list(tasks.iterdir())) <= before
    finally:
        torch.set_num_threads(threads)


def test_peak_memory_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "RESET", tmp_path / "none" / "clear_refs")
    assert memory.peak_mb(_use(1)) is None


class FakeEvent:
    """A CUDA event on a device whose time passes only when `work` is done."""

    device_time = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = FakeEvent.device_time

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 1e3 * (other.at - self.at)


@pytest.fixture
def fake_cuda(monkeypatch):
    """What gpu.measure asks of torch.cuda, on a device with 64 bytes of L2 and no graphs."""
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    properties = type("Properties", (), {"L2_cache_size": 64})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(gpu, "captured", lambda run: None)


def test_gpu_rounds_are_timed_by_events(benchmark, fake_cuda):
    """Against the real fixture: it must read the clock that the events move, call by call."""
    seen, made = [], iter(range(1_000))

    def work(x):
        seen.append(x[0].item())
        FakeEvent.device_time += 1e-4

    def fresh():
        return (torch.full((8,), float(next(made))),)

    gpu.measure(benchmark, work, fresh, rounds=3)
    info = benchmark.extra_info
    assert (info["calls"], info["timing"]) == (4 * 5, "launches")  # 4 sets of 32 bytes; 2 ms
    assert benchmark.stats.stats.median / info["calls"] == pytest.approx(1e-4)
    rounds = [seen[-20 * i : -20 * (i - 1) or None] for i in (3, 2, 1)]
    sets = [set(values) for values in rounds]
    assert [len(values) for values in sets] == [4, 4, 4]
    assert not sets[0] & sets[1]  # every round has fresh values
    assert not sets[1] & sets[2]


@pytest.mark.parametrize(("size", "expected"), [(1, 64), (30_000_000, 4), (10**9, 2)])
def test_buffers_rotate_past_the_cache(size, expected):
    assert gpu.set_count(size, 50_000_000) == expected


def test_cuda_problems_need_a_gpu(monkeypatch):
    def problem(device):
        return Problem(
            op="op", label="label", make=None, reference=None, device=device,
            providers={"published": 1, "kdops": 2}, on_cuda={"torch driver": 3},
        )  # fmt: skip

    both = [problem("cpu"), problem("cuda")]
    assert [p.name for p in on_devices(both)] == ["op label float32"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    names = [p.name for p in on_devices(both)]
    assert names == ["op label float32"] + ["op label float32 cuda"] * 2
    assert list(on_devices(both)[1].providers) == ["published", "torch driver", "kdops"]


def test_rows_on_a_gpu_are_timed_by_events(fake_cuda):
    def call():
        FakeEvent.device_time += 0.25

    assert paired.seconds(call, "cuda") == pytest.approx(0.25)


class _Slow(torch.autograd.Function):
    """A square whose passes take 50 and 20 ms."""

    @staticmethod
    def forward(ctx, x):
        time.sleep(0.05)
        ctx.save_for_backward(x)
        return (x * x).sum()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(0.02)
        return 2 * gradient * ctx.saved_tensors[0]


def test_forms_of_a_problem_are_timed_in_turn(benchmark):
    """What a case reports was measured beside the other cases of its problem that will run."""
    order = []

    def form(name, seconds):
        def function(x):
            order.append(name)
            time.sleep(seconds)
            return 2 * x

        return function

    problem = Problem(
        op="turns", label="three", make=shapes.normal((4,)), reference=lambda x: 2 * x,
        providers={"published": form("published", 0.1), "wrong": lambda x: x / 0, "kdops":
                   form("kdops", 0.02), "torch": form("torch", 0.02)}, modes=("forward",),
    )  # fmt: skip
    cases = [
        {"problem": problem, "provider": name, "mode": "forward"} for name in ("published", "kdops")
    ]
    session = harness.Session(False, [*cases, {"size": 3}])
    session.measure(benchmark, problem, "kdops", "forward")
    timed = order[-benchmark.stats.stats.rounds - 21 :]
    assert "torch" not in order  # not selected
    assert order.count("published") > 3
    assert benchmark.stats.stats.rounds == 21
    assert timed[-1] != timed[-2] or timed[-2] != timed[-3]
    assert 0.02 <= benchmark.stats.stats.min < 0.1


def test_backward_mode_times_no_forward(benchmark):
    """Every round its own graph, that a second backward pass would find used up."""
    calls = []

    def ours(x):
        calls.append(x.detach().clone())
        return _Slow.apply(x)

    problem = Problem(
        op="slow", label="square", make=shapes.normal((4,)), reference=lambda x: (x * x).sum(),
        providers={"published": ours, "kdops": ours}, modes=MODES,
    )  # fmt: skip
    harness.Session(quick=True).measure(benchmark, problem, "kdops", "backward")
    stats = benchmark.stats.stats
    assert 0.02 <= stats.min < 0.05
    assert (benchmark.group, benchmark.extra_info["slow"]) == ("slow square float32 backward", True)
    timed = calls[-stats.rounds :]
    assert stats.rounds >= 3
    assert all(not torch.equal(a, b) for a, b in pairwise(timed))


def test_backward_mode_on_a_gpu_makes_its_sets_anew(benchmark, fake_cuda):
    made, used = iter(range(1_000)), []

    def work(x):
        used.append(x[0].item())
        FakeEvent.device_time += 1e-4

    gpu.measure_once(benchmark, work, lambda: (torch.full((8,), float(next(made))),), rounds=3)
    info = benchmark.extra_info
    assert (info["calls"], info["timing"]) == (4, "launches")  # 4 sets of 32 bytes
    assert benchmark.stats.stats.median / info["calls"] == pytest.approx(1e-4)
    assert len(used) == len(set(used)) == 12
