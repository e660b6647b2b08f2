"""The benchmark report and the regression guard, on small made-up results."""

import json

import pytest

from benchmarks import guard
from benchmarks.report import __main__ as report
from benchmarks.report import records, selection, tables


def _bench(group, provider, median, *, error=1e-7, tolerance=1e-4, **info):
    info = {"op": "svd", "label": "8x8", "dtype": "float32", "mode": "forward", **info}
    info |= {"provider": provider, "error": error, "tolerance": tolerance, "threads": 2}
    info.setdefault("baseline", "torch")
    stats = {"median": median, "iqr": median / 10, "min": 0.9 * median}
    return {"group": group, "stats": stats, "extra_info": info}


def _write(path, benches, cpu=None, isa="avx2"):
    machine = {"torch": "2.13", "threads": 2, "cpu": {"brand_raw": "a CPU"} | (cpu or {})}
    machine["isa"] = isa
    path.write_text(json.dumps({"machine_info": machine, "benchmarks": benches}))
    return path


def _case(group, plain, mine, **info):
    return [_bench(group, "torch", plain, **info), _bench(group, "kdops", mine, **info)]


def _lines(path):
    return tables.markdown(records.load(path)).splitlines()


def test_speedups_and_losses(tmp_path):
    rows = _case("fast", 8e-3, 1e-3) + _case("slow", 1e-3, 2e-3, label="9x9")
    lines = _lines(_write(tmp_path / "r.json", rows))
    assert any("| torch | 8 ms |" in line and line.endswith("| 8.00x |") for line in lines)
    assert any("0.50x (slower)" in line for line in lines)
    assert "- slow: torch is 2.00x faster" in lines
    assert not any(line.startswith("- fast") for line in lines)


def test_what_a_backward_pass_is_worth_is_said(tmp_path):
    """A loss that computes its gradient in the forward has a backward of nothing."""
    rows = _case("g forward", 8e-3, 1e-3) + _case("g both", 8e-3, 1e-3, mode="both")
    assert "`both` decides" not in "\n".join(_lines(_write(tmp_path / "r.json", rows)))
    rows += _case("g backward", 8e-3, 1e-6, mode="backward")
    assert "`both` decides" in "\n".join(_lines(_write(tmp_path / "r.json", rows)))


@pytest.mark.parametrize(
    ("error", "expected"),
    [(1e-2, "kdops is red"), (float("inf"), "kdops is red"), (None, "not verified")],
)
def test_no_speedup_for_a_red_case(tmp_path, error, expected):
    rows = [_bench("g", "torch", 8e-3), _bench("g", "kdops", 1e-3, error=error)]
    text = "\n".join(_lines(_write(tmp_path / "r.json", rows)))
    assert "8.00x" not in text
    assert expected in text


def test_overhead_is_per_call(tmp_path):
    rows = _case("overhead", 4e-3, 2e-3, calls=200)
    groups = records.load(_write(tmp_path / "r.json", rows)).groups
    assert records.ours(groups["overhead"]).median == pytest.approx(1e-5)


def test_exponent_uses_large_sizes():
    points = [(2.0**i, 5.0 + 8.0**i) for i in range(8)]  # a constant hides the cube at first
    assert records.exponent(points) == pytest.approx(3.0, abs=0.01)


def _everything():
    rows = _case("svd 8x8 float32 forward", 8e-3, 1e-3)
    for n in (8, 16, 32, 64):
        theory = {"torch": (3, 2), "kdops": (3, 2)}
        info = {"sweep": "svd over n", "size": n, "theory": theory, "op": "scaling"}
        info["peak_mb"] = n * n / 10  # 8 x 8 is too small to be counted
        rows += _case(f"sweep {n}", 1e-6 * n**3, 1e-7 * n**3, **info)
    for method, plain, mine in (
        ("SoftTarget", 0.1, 0.1), ("KD-SVD", 0.5, 0.12), ("two passes", 0.15, 0.15),
        ("part: svd", 0.3, 0.01),
    ):  # fmt: skip
        info = {"op": "iteration", "label": "a pair", "method": method, "baseline": "published"}
        rows.append(_bench(f"iteration {method}", "published", plain, **info))
        rows.append(_bench(f"iteration {method}", "kdops", mine, **info))
    return rows


def test_iteration_surcharge_and_scaling(tmp_path):
    lines = _lines(_write(tmp_path / "r.json", _everything()))
    row = next(line for line in lines if line.startswith("| KD-SVD |"))
    # 400 ms over SoftTarget of which 20 remain; 350 over the second backward of which none do
    assert row == "| KD-SVD | 500 ms | 120 ms | 400.0 ms | 20.0 ms | 95 % | 109 % |"
    assert "| svd over n | kdops | 64 | 26.2 ms | 3.00 | 3 | 2.00 | 2 |" in lines


def test_plots(tmp_path):
    pytest.importorskip("matplotlib")
    path = _write(tmp_path / "r.json", _everything())
    report.main([str(path), "--out", str(tmp_path / "out")])
    made = {p.name for p in (tmp_path / "out").iterdir()}
    assert made == {"report.md", "speedup.png", "scaling-1.png", "iteration.png"}


README = """# A project

<!-- benchmarks:begin -->
old figures
<!-- benchmarks:end -->

The rest.
"""


def test_readme_is_renewed(tmp_path):
    pytest.importorskip("matplotlib")
    group = "svd 8x8 float32 forward"
    rows = [_bench(group, name, t, baseline="torch.linalg.svd") for name, t in (
        ("torch.linalg.svd", 8e-3), ("torch Gram + eigh", 3e-3), ("kdops", 1e-3))]  # fmt: skip
    rows.append(_bench(group, "torch wrong", 1e-6, error=1.0, baseline="torch.linalg.svd"))
    rows += _case("a loss", 1e-3, 2e-3, label="9x9") + _everything()
    (tmp_path / "README.md").write_text(README)
    results = _write(tmp_path / "r.json", rows)
    for _ in range(2):  # a second time: the same page
        report.main([str(results), "--readme", str(tmp_path / "README.md")])
        page = (tmp_path / "README.md").read_text()
        # the best plain form is the fastest that is right
        assert "| SVD, 128 of 8x8 | 8 ms | 3 ms | 1 ms ± 5 % | 8.0x | 3.0x |" in page
        assert "- a pair: KD-SVD 95 % (109 %)" in page
        assert "- a loss: torch is 2.00x faster" in page
        assert "torch wrong (inaccurate) is 1000.00x faster" in page
        assert "old figures" not in page
        assert page.startswith("# A project\n\n<!-- benchmarks:begin -->\n")
        assert page.endswith("<!-- benchmarks:end -->\n\nThe rest.\n")
        images = [line.split("(")[1][:-1] for line in page.splitlines() if line.startswith("![")]
        assert images == ["docs/img/speedup.png", "docs/img/iteration.png"]
        assert all((tmp_path / image).stat().st_size < 100_000 for image in images)


def test_readme_without_markers_is_left_alone(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "README.md").write_text("# A project\n")
    results = _write(tmp_path / "r.json", _everything())
    with pytest.raises(ValueError, match="benchmarks:begin"):
        report.main([str(results), "--readme", str(tmp_path / "README.md")])
    assert (tmp_path / "README.md").read_text() == "# A project\n"


def test_readme_cases_are_benchmarks(problems):
    """Every line of the README's table names a group that a run records."""
    recorded = {f"{p.name} {mode}" for p in problems for mode in p.modes}
    assert set(selection.CASES) <= recorded


def test_a_committed_record_says_the_same(tmp_path):
    """Four digits of every time, one line a case, and the same report but for rounding."""
    rows = _everything() + _case("overhead", 4e-3, 2e-3, calls=200)
    run = _write(tmp_path / "run.json", rows, {"family": 25}, isa="avx2")
    report.main([str(run), "--record", str(tmp_path / "record.json")])
    before, after = (records.load(tmp_path / name) for name in ("run.json", "record.json"))
    assert tables.markdown(after) == tables.markdown(before)
    assert (after.machine["isa"], after.machine["family"]) == ("avx2", 25)
    text = (tmp_path / "record.json").read_text()
    assert len(text.splitlines()) == len(before.groups) + 3


def test_committed_records_are_compact():
    folder = guard.RESULTS
    assert sum(path.stat().st_size for path in folder.glob("*.json")) < 300_000
    for path in folder.glob("*.json"):
        assert " object at 0x" not in path.read_text(), path.name
        assert records.load(path).machine["isa"] in ("baseline", "avx2", "avx512"), path.name


@pytest.mark.parametrize(
    ("mine", "status", "word"),
    [
        (0.3e-3, 0, "0 warnings"),
        (1.2e-3, 0, "0 warnings"),
        (1.5e-3, 0, "warning:"),
        (2.5e-3, 1, "FAILED"),
    ],
)
def test_guard(tmp_path, capsys, mine, status, word):
    (tmp_path / "committed").mkdir()
    _write(tmp_path / "committed" / "cpu.json", _case("g", 8e-3, 1e-3))
    # the whole machine is three times slower: no matter
    run = _write(tmp_path / "run.json", _case("g", 24e-3, 3 * mine) + _case("new", 1.0, 9.0))
    assert guard.main([str(run), "--results", str(tmp_path / "committed")]) == status
    printed = capsys.readouterr().out
    assert word in printed
    assert "1 cases compared" in printed


def test_guard_is_not_disturbed_by_other_load(tmp_path, capsys):
    """Most rounds of a busy machine are slow; the fastest is not."""
    committed, run = _case("g", 8e-3, 1e-3), _case("g", 8e-3, 9e-3)
    run[1]["stats"]["min"] = committed[1]["stats"]["min"]
    assert _guard(tmp_path, capsys, run, committed)[0] == 0


def test_guard_compares_with_records_of_the_same_instruction_set(tmp_path, capsys):
    """Of whatever processor: a guard that knows only machines that are gone cannot fail."""
    (tmp_path / "committed").mkdir()
    where = ["--results", str(tmp_path / "committed")]
    slow = _write(tmp_path / "run.json", _case("g", 8e-3, 5e-3), {"family": 23})
    _write(tmp_path / "committed" / "wide.json", _case("g", 8e-3, 1e-3), isa="avx512")
    assert guard.main([str(slow), *where]) == 1
    printed = capsys.readouterr().out
    assert "nothing to compare with: this run is of avx2" in printed
    assert "holds records of avx512" in printed
    _write(tmp_path / "committed" / "same.json", _case("g", 8e-3, 1e-3), {"family": 25})
    assert guard.main([str(slow), *where]) == 1
    assert "FAILED: g: kdops/baseline 0.6250, committed 0.1250" in capsys.readouterr().out
    quick = _write(tmp_path / "quick.json", _case("g", 8e-3, 1e-3), {"family": 23})
    assert guard.main([str(quick), *where]) == 0


def test_guard_prefers_records_of_its_own_processor(tmp_path, capsys):
    (tmp_path / "committed").mkdir()
    _write(tmp_path / "committed" / "other.json", _case("g", 8e-3, 1e-3), {"family": 25})
    _write(tmp_path / "committed" / "own.json", _case("g", 8e-3, 3e-3), {"family": 23})
    where = ["--results", str(tmp_path / "committed")]
    for mine, status in ((5e-3, 0), (7e-3, 1)):
        run = _write(tmp_path / "run.json", _case("g", 8e-3, mine), {"family": 23})
        assert guard.main([str(run), *where]) == status
    assert "committed 0.3750" in capsys.readouterr().out


def test_guard_fails_where_no_case_is_known(tmp_path, capsys):
    status, printed = _guard(tmp_path, capsys, _case("new", 1.0, 1.0), _case("old", 1.0, 1.0))
    assert status == 1
    assert "nothing to compare with" in printed


def test_guard_takes_the_best_of_several_records(tmp_path, capsys):
    """A record of a disturbed hour must not loosen what a quiet one has shown."""
    (tmp_path / "committed").mkdir()
    _write(tmp_path / "committed" / "quiet.json", _case("g", 8e-3, 1e-3))
    _write(tmp_path / "committed" / "busy.json", _case("g", 8e-3, 4e-3))
    run = _write(tmp_path / "run.json", _case("g", 8e-3, 5e-3))
    assert guard.main([str(run), "--results", str(tmp_path / "committed")]) == 1
    assert "committed 0.1250" in capsys.readouterr().out


def test_guard_counts_the_better_of_two_runs(tmp_path, capsys):
    (tmp_path / "committed").mkdir()
    _write(tmp_path / "committed" / "cpu.json", _case("g", 8e-3, 1e-3))
    first = _write(tmp_path / "first.json", _case("g", 8e-3, 5e-3))
    second = _write(tmp_path / "second.json", _case("g", 8e-3, 1e-3))
    where = ["--results", str(tmp_path / "committed")]
    assert guard.main([str(first), *where]) == 1
    assert guard.main([str(first), str(second), *where]) == 0
    assert guard.main([str(first), str(first), *where]) == 1
    assert "FAILED: g: kdops/baseline" in capsys.readouterr().out


def test_share_of_a_surcharge_within_the_noise(tmp_path):
    """SoftTarget's two runs, which are the same work, differ by 30 ms: 50 ms mean nothing."""
    rows = []
    for method, plain, mine in (
        ("SoftTarget", 0.2, 0.23),
        ("FSP", 0.27, 0.2),
        ("KD-SVD", 0.4, 0.2),
    ):
        info = {"op": "iteration", "label": "a pair", "method": method, "baseline": "published"}
        rows.append(_bench(f"iteration {method}", "published", plain, **info))
        rows.append(_bench(f"iteration {method}", "kdops", mine, **info))
    lines = _lines(_write(tmp_path / "r.json", rows))
    assert next(x for x in lines if x.startswith("| FSP |")).endswith("| noise |  |")
    assert next(x for x in lines if x.startswith("| KD-SVD |")).endswith("| 108 % |  |")


def test_a_method_cheaper_than_soft_targets_shows_the_noise(tmp_path):
    rows = []
    for method, plain, mine in (
        ("SoftTarget", 0.2, 0.2),
        ("RKD", 0.11, 0.1),
        ("FitNet", 0.28, 0.2),
        ("KD-SVD", 0.4, 0.22),
    ):
        info = {"op": "iteration", "label": "a pair", "method": method, "baseline": "published"}
        rows.append(_bench(f"iteration {method}", "published", plain, **info))
        rows.append(_bench(f"iteration {method}", "kdops", mine, **info))
    lines = _lines(_write(tmp_path / "r.json", rows))
    assert next(x for x in lines if x.startswith("| FitNet |")).endswith("| noise |  |")
    assert next(x for x in lines if x.startswith("| KD-SVD |")).endswith("| 90 % |  |")


def _guard(tmp_path, capsys, run, committed):
    (tmp_path / "committed").mkdir()
    _write(tmp_path / "committed" / "cpu.json", committed)
    path = _write(tmp_path / "run.json", run)
    status = guard.main([str(path), "--results", str(tmp_path / "committed")])
    return status, capsys.readouterr().out


def test_guard_names_what_is_on_one_side_only(tmp_path, capsys):
    committed = _case("both", 8e-3, 1e-3, slow=False) + _case("gone", 8e-3, 1e-3, slow=False)
    committed += _case("full run only", 8e-3, 1e-3, slow=True)
    run = _case("both", 8e-3, 1e-3, slow=False) + _case("new", 1e-3, 9e-3)
    run += _case("half", 1e-3, 9e-3)[1:]  # its baseline was left out
    status, printed = _guard(tmp_path, capsys, run, committed)
    assert status == 0
    assert "1 cases without a committed ratio at this thread count: new" in printed
    assert "1 committed quick cases that were not run: gone" in printed
    assert "1 cases compared" in printed


@pytest.mark.parametrize(("scale", "status"), [(1e-6, 0), (1e-3, 1)])
def test_guard_only_warns_of_tiny_cases(tmp_path, capsys, scale, status):
    found = _guard(tmp_path, capsys, _case("g", scale, 30 * scale), _case("g", scale, scale))
    assert found[0] == status
    assert ("FAILED" if status else "warning:") in found[1]
