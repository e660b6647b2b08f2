"""The table of training iterations: rows timed in common rounds, and what is read off them."""

import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import bench_iteration
from benchmarks.measure import clock, iteration, paired, parts
from benchmarks.report import readme, records, tables
from benchmarks.report.surcharges import ratio, spread
from kdops import distillers
from kdops.testing import relative_error


def test_replayed_durations_are_the_benchmarks_rounds(benchmark):
    clock.replay(benchmark, [0.5, 0.125, 0.25])
    assert benchmark.stats.stats.data == pytest.approx([0.5, 0.125, 0.25])
    assert benchmark.stats.stats.rounds == 3


class Machine:
    """Time passes only when a row runs: its own seconds and the machine's drift."""

    def __init__(self, monkeypatch):
        self.now, self.ran, self.warming = 0.0, [], True
        monkeypatch.setattr(paired.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(paired, "peak_mb", self.peak_mb)

    def peak_mb(self, call, device):
        self.warming = True
        try:
            call()
        finally:
            self.warming = False
        return 1.234

    def run(self, name, seconds):
        def call(seed):
            if not self.warming:
                self.ran.append((name, seed))
                self.now += seconds + 0.001 * len(self.ran)

        return paired.Run(call, lambda seed: (seed,))


def test_rows_share_their_rounds(monkeypatch):
    """Every row once in a round, on the same seed, in an order that turns; the warm-up untimed."""
    machine = Machine(monkeypatch)
    runs = {name: machine.run(name, 1.0) for name in "abc"}
    table = paired.measure(runs, "cpu", budget=0.0, least=3, most=9)
    assert [name for name, _ in machine.ran] == list("abc" + "cba" + "abc")
    assert [seed for _, seed in machine.ran] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert table["c"].durations == pytest.approx([1.003, 1.004, 1.009])
    assert table["a"].peak_mb == 1.23


def test_forms_take_turns(monkeypatch):
    """Each its own number of rounds, spread over the time that all take; a failure stays alone."""

    def failing(seed):
        raise MemoryError("too large")

    machine = Machine(monkeypatch)
    seconds = {"slow": 2.0, "quick": 0.5, "middle": 1.0}
    runs = {name: machine.run(name, length) for name, length in seconds.items()}
    runs["bad"] = paired.Run(failing, lambda seed: (seed,))
    table = paired.interleave(runs, "cpu", lambda once, making: round(4 / once))
    machine.ran = machine.ran[-14:]  # a call each before, which gave the seconds
    assert [name for name, _ in machine.ran] == (
        ["quick"] + ["middle", "quick"] + ["quick"] + ["middle", "quick", "slow"]
        + ["quick"] + ["middle", "quick"] + ["quick"] + ["middle", "quick", "slow"]
    )  # fmt: skip
    assert {name: len(table[name].durations) for name in runs} == {
        "slow": 2, "quick": 8, "middle": 4, "bad": 0,
    }  # fmt: skip
    assert isinstance(table["bad"].failure, MemoryError)


def test_a_form_that_fails_in_a_round_fails_alone(monkeypatch):
    def astray(seed):
        if seed == 2:
            raise ArithmeticError("not positive definite")

    machine = Machine(monkeypatch)
    runs = {"good": machine.run("good", 1.0), "astray": paired.Run(astray, lambda seed: (seed,))}
    table = paired.interleave(runs, "cpu", lambda once, making: 4)
    assert len(table["good"].durations) == 4
    assert isinstance(table["astray"].failure, ArithmeticError)


@pytest.mark.parametrize(("budget", "rounds"), [(1.0, 3), (10.5, 5), (100.0, 9)])
def test_rounds_fit_the_budget_of_a_table(monkeypatch, budget, rounds):
    machine = Machine(monkeypatch)
    runs = {name: machine.run(name, 1.0) for name in "ab"}
    table = paired.measure(runs, "cpu", budget, least=3, most=9)
    assert {len(timed.durations) for timed in table.values()} == {rounds}


def test_a_row_that_fails_fails_alone(monkeypatch):
    def failing(seed):
        raise MemoryError("too large")

    machine = Machine(monkeypatch)
    runs = {"bad": paired.Run(failing, lambda seed: (seed,)), "good": machine.run("good", 1.0)}
    table = paired.measure(runs, "cpu", budget=0.0, least=2, most=2)
    assert isinstance(table["bad"].failure, MemoryError)
    assert len(table["good"].durations) == 2


def test_only_collected_rows_are_timed():
    def item(function, **params):
        return SimpleNamespace(function=function, callspec=SimpleNamespace(params=params))

    case = {"pair": "small", "device": "cpu"}
    items = [
        item(test_only_collected_rows_are_timed, **case, method="FSP", side="kdops"),
        item(bench_iteration.test_iteration, **case, method="RKD", side="kdops"),
        item(bench_iteration.test_iteration, pair="large", device="cpu", method="AB", side="kdops"),
        item(bench_iteration.test_iteration, **case, method="RKD", side="published"),
        SimpleNamespace(),  # no function: a text file
    ]
    request = SimpleNamespace(node=items[1], session=SimpleNamespace(items=items))
    assert bench_iteration.selected(request) == [("RKD", "kdops"), ("RKD", "published")]


@pytest.mark.parametrize("part", parts.PARTS)
def test_parts_of_an_iteration_are_the_same_on_both_sides(part):
    generator = torch.Generator().manual_seed(0)
    levels = [(6, 8, 8), (10, 4, 4), (12, 4, 4)]
    student, teacher = (
        [torch.randn(5, *shape, generator=generator) for shape in levels] for _ in range(2)
    )
    method = distillers.MHGD.from_sample(student, teacher)
    found = [
        parts.gradient(part, side, method)(*parts.leaves(part, student, teacher))
        for side in iteration.SIDES
    ]
    for plain, ours in zip(*found, strict=True):
        assert plain.abs().amax() > 0
        assert relative_error(ours, plain) < 1e-3


def _bench(method, side, durations, label="a pair"):
    info = {"op": "iteration", "label": label, "method": method, "provider": side}
    info |= {"baseline": "published", "error": 1e-6, "tolerance": 1e-2, "durations": durations}
    times = sorted(durations)
    middle = times[len(times) // 2]
    stats = {"median": middle, "iqr": 0.0, "min": times[0]}
    return {"group": f"iteration {label} {method}", "stats": stats, "extra_info": info}


def _groups(tmp_path, rows, rounds=True):
    """rows: method -> (seconds in PyTorch, seconds with kdops), each of every round."""
    benches = [
        _bench(method, side, durations)
        for method, both in rows.items()
        for side, durations in zip(("published", "kdops"), both, strict=True)
    ]
    if not rounds:
        for bench in benches:
            del bench["extra_info"]["durations"]
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"machine_info": {}, "benchmarks": benches}))
    return records.load(path).groups


def _line(groups, start):
    return next(x for x in tables.iteration_tables(groups) if x.startswith(start))


DRIFT = [0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8]  # seconds that a machine loses from round to round


def _drifting(seconds, disturbed=()):
    """A row on that machine; what else runs there takes 2 s in the disturbed rounds."""
    return [seconds + d + 2.0 * (i in disturbed) for i, d in enumerate(DRIFT)]


ROWS = {
    "SoftTarget": (_drifting(0.5), _drifting(0.5)),
    "two passes": (_drifting(0.6), _drifting(0.6)),
    "KD-SVD": (_drifting(0.9, {5}), _drifting(0.7, {0, 1})),
    "MHGD": (_drifting(1.3, {0}), _drifting(0.7)),
}


def test_drift_and_disturbance_do_not_reach_the_share(tmp_path):
    """400 ms over SoftTarget of which 200 remain; medians of the rows would say 800 remain."""
    line = _line(_groups(tmp_path, ROWS), "| KD-SVD |")
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3].startswith("400.0 ms ± ")
    assert cells[4].startswith("200.0 ms ± ")
    assert cells[5].startswith("50 % ± ")
    by_medians = _groups(tmp_path, ROWS, rounds=False)
    assert "| 800.0 ms | -100 % |" in _line(by_medians, "| KD-SVD |")


def test_share_and_its_uncertainty(tmp_path):
    jitter = (-0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03)
    plain = [0.9 + d + j for d, j in zip(DRIFT, jitter, strict=True)]
    rows = ROWS | {"KD-SVD": (plain, _drifting(0.7))}
    # surcharges of 370 to 430 ms, the middle half within 380 and 420, of which a half is kept
    assert _line(_groups(tmp_path, rows), "| KD-SVD |") == (
        "| KD-SVD | 1.8 s | 1.6 s | 400.0 ms ± 20.0 | 200.0 ms ± 0.0 | 50 % ± 2 | 67 % ± 2 |"
    )
    page = "\n".join(readme.iteration_lines(_groups(tmp_path, rows)))
    assert "- a pair: KD-SVD 50 % ± 2 (67 % ± 2), MHGD 75 % ± 0 (86 % ± 0)" in page


@pytest.mark.parametrize(("wide", "expected"), [(0.06, "50 % ± "), (0.07, "noise")])
def test_share_of_a_surcharge_within_its_spread(tmp_path, wide, expected):
    """200 ms that vary by `wide` from round to round, up and down."""
    plain = [0.7 + d + w * wide for d, w in zip(DRIFT, (0, 1, -1, 1, -1, 1, -1), strict=True)]
    line = _line(_groups(tmp_path, ROWS | {"FSP": (plain, _drifting(0.6))}), "| FSP |")
    assert line.strip("|").split("|")[5].strip().startswith(expected)


def test_few_rounds_have_a_wide_spread_or_none():
    assert spread([1.0, 2.0, 4.0]) == pytest.approx(1.5)  # half the range
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == pytest.approx(2.0)
    assert spread([1.0, 2.0]) is None


def test_a_ratio_stands_a_round_without_a_difference():
    found = ratio([0.5, 0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1e-9, 1.0, 1.0])
    assert sorted(found)[2] == pytest.approx(0.5)
    assert max(found) == pytest.approx(1.0)


def test_what_a_surcharge_consists_of(tmp_path):
    rows = ROWS | {
        "KD-SVD": (_drifting(0.9), _drifting(0.7)),
        "part: svd": ([0.2] * 7, [0.02] * 7),
        "part: relation": ([0.06] * 7, [0.01] * 7),
        "part: attention": ([0.04] * 7, [0.04] * 7),
    }
    lines = tables.iteration_tables(_groups(tmp_path, rows))
    assert (
        "| KD-SVD | published | 400.0 ms ± 0.0 | 200.0 ms ± 0.0 | 60.0 ms ± 0.0 | 100.0 ms ± 0.0 |"
        " 360.0 ms ± 0.0 | 90 % ± 0 |"
    ) in lines
    assert any(x.startswith("| MHGD | kdops | 200.0 ms ± 0.0 | 20.0 ms ± 0.0 | 40") for x in lines)
    del rows["part: attention"]
    lines = tables.iteration_tables(_groups(tmp_path, rows))
    assert not any(x.startswith("| MHGD | kdops | ") for x in lines)


def test_rows_of_different_rounds_are_not_paired(tmp_path):
    rows = ROWS | {"KD-SVD": ([0.9] * 4, [0.7] * 4)}
    assert "±" not in _line(_groups(tmp_path, rows), "| KD-SVD |")


@pytest.mark.parametrize(("longest", "batch"), [(1e9, 64), (0.0, 16)])
def test_the_batch_is_smaller_where_an_iteration_is_long(monkeypatch, longest, batch):
    monkeypatch.setattr(iteration, "BATCH", 64)
    monkeypatch.setattr(iteration, "LONGEST", longest)
    state = iteration.setting("ResNet32-ResNet8", "cpu")
    assert state.batch == batch
    kept, now = state.kept[1], state.student.state_dict()
    assert all(torch.equal(kept[name], now[name]) for name in kept)  # the probe left no trace


@pytest.mark.slow
def test_every_row_of_a_pair_runs(monkeypatch):
    """All rows once, on a batch of eight: no method fails or differs between its sides."""
    monkeypatch.setattr(iteration, "BATCH", 8)
    monkeypatch.setattr(iteration, "LEAST", 1)
    cases = {case.values[2:] for case in bench_iteration._cases(iteration.ROWS)}
    table = iteration.Pairs().timed("ResNet32-ResNet8", "cpu", sorted(cases), quick=True)
    assert set(table) == cases  # a method whose sides differ would lack
    assert [row for row, timed in table.items() if timed.failure is not None] == []
    assert {len(timed.durations) for timed in table.values()} == {1}


def test_the_amortised_clip_is_a_mean_of_ten_steps(tmp_path):
    """Published 400 ms over SoftTarget; ours 200, of which the second backward is 100, and 110 for
    a step that holds the factor: (200 + 9 * 110) / 10 = 119."""
    rows = ROWS | {
        "KD-SVD": (_drifting(0.9), _drifting(0.7)),
        "KD-SVD held": (_drifting(0.8), _drifting(0.61)),
        "part: svd": ([0.2] * 7, [0.05] * 7),
        "part: relation": ([0.1] * 7, [0.05] * 7),
    }
    line = _line(_groups(tmp_path, rows), "| KD-SVD, every=10 | kdops |")
    cells = [cell.strip().partition(" ±")[0] for cell in line.strip("|").split("|")]
    assert cells[2:7] == ["119.0 ms", "50.0 ms", "50.0 ms", "10.0 ms", "110.0 ms"]
    text = "\n".join(tables.iteration_tables(_groups(tmp_path, rows)))
    assert "every 10th step kdops removes 70 % ± 0\nof the surcharge" in text
