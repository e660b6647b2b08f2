"""How the benchmarks measure: rounds, peak memory, plain forms that are compared with."""

import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.cases import floors, shapes
from benchmarks.measure import gpu, harness, memory, paired
from benchmarks.measure.problem import MODES, Problem, on_devices
from benchmarks.published import gram, rbf, relation, svd
from kdops.testing import relative_error


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


def _gradients(function, arguments):
    leaves = [a.clone().requires_grad_(i < len(arguments) // 2) for i, a in enumerate(arguments)]
    loss = function(*leaves).sum()
    return [loss, *torch.autograd.grad(loss, leaves[: len(arguments) // 2])]


ROWS = [(20, 12)] * 2
PLAIN = {
    "distance": (relation.rkd_distance_cdist, relation.rkd_distance, ROWS),
    "angle": (relation.rkd_angle_gram, relation.rkd_angle, ROWS),
    "similarity": (relation.similarity_covariance, relation.similarity, ROWS),
    "fsp": (gram.fsp_loss_fused, gram.fsp_loss, [(3, 8, 4, 4)] * 4),
    "svd rbf": (rbf.svd_rbf_gemm, rbf.svd_rbf_broadcast, [(3, 16, 2), (3, 24, 2)] * 2),
}


@pytest.mark.parametrize("name", PLAIN)
def test_best_plain_form_is_the_published_loss(name):
    """A baseline that computed something else would make every comparison with it worthless."""
    plain, published, shapes = PLAIN[name]
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    if name == "svd rbf":
        values = [v / v.abs().amax() for v in values]
    pairs = zip(_gradients(plain, values), _gradients(published, values), strict=True)
    for ours, theirs in pairs:
        assert relative_error(ours.reshape_as(theirs), theirs) < 1e-9


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
def test_decomposition_by_gram(shape):
    A = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    U, S, Vh = svd.full_by_gram(A)
    assert relative_error(U * S.unsqueeze(-2) @ Vh, A) < 1e-12
    for values in (S, svd.values_by_gram(A)):
        assert relative_error(values, torch.linalg.svdvals(A)) < 1e-9


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


def test_floors_are_those_of_the_plan():
    """The figures worked out by hand: 27 MB and 0.21 GF for the 4 largest of 128 49x512."""
    moved, flop = floors.top(49, 512, 4, 128)["forward"]
    assert (moved / 1e6, flop / 1e9) == (pytest.approx(27, rel=0.02), pytest.approx(0.21, rel=0.05))
    moved, flop = floors.top(1024, 16, 4, 128)["forward"]
    assert (moved / 1e6, flop / 1e9) == (
        pytest.approx(8.4, abs=0.1),
        pytest.approx(0.035, abs=1e-3),
    )
    assert floors.svd(64, 64, 128)["forward"][0] == pytest.approx(6.3e6, rel=0.02)
    assert floors.angle(1024, 512)["both"][1] == pytest.approx(22 * 2**30)


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


BACKWARD = {
    "svd top 4, S and V 256x32", "svd, S and product 256x32", "gram (128; 64,64; 16x16)",
    "fsp_loss (128; 256,256; 8x8)", "rkd_angle_loss N=128 D=512", "rkd_distance_loss N=128 D=512",
    "svd_rbf_loss (128; 64,256; 4) vectors", "rbf_affinity (512, 128)",
    "nst_loss (64; 256, 8x8)", "attention_loss (128; 256, 8x8)", "pairwise_distance N=256 D=512",
}  # fmt: skip
COMPILED = BACKWARD - {"svd, S and product 256x32", "pairwise_distance N=256 D=512"} | {
    "similarity_loss N=512 D=128"
}


def test_main_cases_have_a_backward_mode_and_a_compiled_form(problems):
    separate = {p.name for p in problems if "backward" in p.modes}
    assert {f"{name} float32" for name in BACKWARD} <= separate
    compiled = {p.name for p in problems if any(n.startswith("torch.compile") for n in p.providers)}
    assert {f"{name} float32" for name in COMPILED} <= compiled
    quick = [
        case.values
        for case in harness.parametrise(problems)
        if not any(mark.name == "slow" for mark in case.marks)
    ]
    assert quick
    assert not any(mode == "backward" or "compile" in name for _, name, mode in quick)
