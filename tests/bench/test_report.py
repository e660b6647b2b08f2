"""The benchmark report, on small made-up results."""

import pytest
from support.bench_records import case, report_lines, timed, write_run

from benchmarks import guard
from benchmarks.report import __main__ as report
from benchmarks.report import records, selection, tables


def test_speedups_and_losses(tmp_path):
    rows = case("fast", 8e-3, 1e-3) + case("slow", 1e-3, 2e-3, label="9x9")
    lines = report_lines(write_run(tmp_path / "r.json", rows))
    assert any("| torch | 8 ms |" in line and line.endswith("| 8.00x |") for line in lines)
    assert any("0.50x (slower)" in line for line in lines)
    assert "- slow: torch is 2.00x faster" in lines
    assert not any(line.startswith("- fast") for line in lines)


def test_what_a_backward_pass_is_worth_is_said(tmp_path):
    """A loss that computes its gradient in the forward has a backward of nothing."""
    rows = case("g forward", 8e-3, 1e-3) + case("g both", 8e-3, 1e-3, mode="both")
    assert "`both` decides" not in "\n".join(report_lines(write_run(tmp_path / "r.json", rows)))
    rows += case("g backward", 8e-3, 1e-6, mode="backward")
    assert "`both` decides" in "\n".join(report_lines(write_run(tmp_path / "r.json", rows)))


@pytest.mark.parametrize(
    ("error", "expected"),
    [(1e-2, "kdops is red"), (float("inf"), "kdops is red"), (None, "not verified")],
)
def test_no_speedup_for_a_red_case(tmp_path, error, expected):
    rows = [timed("g", "torch", 8e-3), timed("g", "kdops", 1e-3, error=error)]
    text = "\n".join(report_lines(write_run(tmp_path / "r.json", rows)))
    assert "8.00x" not in text
    assert expected in text


def test_overhead_is_per_call(tmp_path):
    rows = case("overhead", 4e-3, 2e-3, calls=200)
    groups = records.load(write_run(tmp_path / "r.json", rows)).groups
    assert records.ours(groups["overhead"]).median == pytest.approx(1e-5)


def test_exponent_uses_large_sizes():
    points = [(2.0**i, 5.0 + 8.0**i) for i in range(8)]  # a constant hides the cube at first
    assert records.exponent(points) == pytest.approx(3.0, abs=0.01)


def _everything():
    rows = case("svd 8x8 float32 forward", 8e-3, 1e-3)
    for n in (8, 16, 32, 64):
        theory = {"torch": (3, 2), "kdops": (3, 2)}
        info = {"sweep": "svd over n", "size": n, "theory": theory, "op": "scaling"}
        info["peak_mb"] = n * n / 10  # 8 x 8 is too small to be counted
        rows += case(f"sweep {n}", 1e-6 * n**3, 1e-7 * n**3, **info)
    for method, plain, mine in (
        ("SoftTarget", 0.1, 0.1), ("KD-SVD", 0.5, 0.12), ("two passes", 0.15, 0.15),
        ("part: svd", 0.3, 0.01),
    ):  # fmt: skip
        info = {"op": "iteration", "label": "a pair", "method": method, "baseline": "published"}
        rows.append(timed(f"iteration {method}", "published", plain, **info))
        rows.append(timed(f"iteration {method}", "kdops", mine, **info))
    return rows


def test_iteration_surcharge_and_scaling(tmp_path):
    lines = report_lines(write_run(tmp_path / "r.json", _everything()))
    row = next(line for line in lines if line.startswith("| KD-SVD |"))
    # 400 ms over SoftTarget of which 20 remain; 350 over the second backward of which none do
    assert row == "| KD-SVD | 500 ms | 120 ms | 400.0 ms | 20.0 ms | 95 % | 109 % |"
    assert "| svd over n | kdops | 64 | 26.2 ms | 3.00 | 3 | 2.00 | 2 |" in lines


def test_plots(tmp_path):
    pytest.importorskip("matplotlib")
    path = write_run(tmp_path / "r.json", _everything())
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
    few, group = "svd 64x64 float32 forward", "svd 8x8 float32 forward"
    today = "torch.linalg.svd"
    rows = [timed(few, name, t, baseline=today) for name, t in ((today, 6e-3), ("kdops", 1e-3))]
    rows += [timed(group, name, t, baseline="torch.linalg.svd") for name, t in (
        ("torch.linalg.svd", 8e-3), ("torch Gram + eigh", 3e-3), ("kdops", 1e-3))]  # fmt: skip
    rows.append(timed(group, "torch wrong", 1e-6, error=1.0, baseline="torch.linalg.svd"))
    rows += case("a loss", 1e-3, 2e-3, label="9x9") + _everything()
    readme, long = tmp_path / "README.md", tmp_path / "docs" / "performance.md"
    long.parent.mkdir()
    readme.write_text(README)
    long.write_text(README)
    results = write_run(tmp_path / "r.json", rows)
    for _ in range(2):  # a second time: the same pages
        report.main([str(results), "--readme", str(readme)])
        page = long.read_text()
        # the best plain form is the fastest that is right
        assert "| SVD, 128 of 8x8 | 8 ms | 3 ms | 1 ms ± 5 % | 8.0x | 3.0x |" in page
        assert "- a pair: KD-SVD 95 % (109 %)" in page
        assert "- a loss: torch is 2.00x faster" in page
        assert "torch wrong (inaccurate) is 1000.00x faster" in page
        assert shown(long) == ["img/speedup.png", "img/iteration.png"]
        assert "| SVD, 128 of 64x64 | 6 ms |" in readme.read_text()
        assert "8x8" not in readme.read_text()
        assert shown(readme) == ["docs/img/speedup.png"]


def shown(page):
    """The images of a renewed page."""
    text = page.read_text()
    assert "old figures" not in text
    assert text.startswith("# A project\n\n<!-- benchmarks:begin -->\n")
    assert text.endswith("<!-- benchmarks:end -->\n\nThe rest.\n")
    images = [line.split("(")[1][:-1] for line in text.splitlines() if line.startswith("![")]
    assert all((page.parent / image).stat().st_size < 100_000 for image in images)
    return images


def test_readme_without_markers_is_left_alone(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "performance.md").write_text(README)
    (tmp_path / "README.md").write_text("# A project\n")
    results = write_run(tmp_path / "r.json", _everything())
    with pytest.raises(ValueError, match="benchmarks:begin"):
        report.main([str(results), "--readme", str(tmp_path / "README.md")])
    assert (tmp_path / "README.md").read_text() == "# A project\n"


def test_readme_cases_are_benchmarks(problems):
    """Every line of the README's table names a group that a run records."""
    recorded = {f"{p.name} {mode}" for p in problems for mode in p.modes}
    assert set(selection.FEW) < set(selection.CASES) <= recorded


def test_a_committed_record_says_the_same(tmp_path):
    """Four digits of every time, one line a case, and the same report but for rounding."""
    rows = _everything() + case("overhead", 4e-3, 2e-3, calls=200)
    run = write_run(tmp_path / "run.json", rows, {"family": 25}, isa="avx2")
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


def test_share_of_a_surcharge_within_the_noise(tmp_path):
    """SoftTarget's two runs, which are the same work, differ by 30 ms: 50 ms mean nothing."""
    rows = []
    for method, plain, mine in (
        ("SoftTarget", 0.2, 0.23),
        ("FSP", 0.27, 0.2),
        ("KD-SVD", 0.4, 0.2),
    ):
        info = {"op": "iteration", "label": "a pair", "method": method, "baseline": "published"}
        rows.append(timed(f"iteration {method}", "published", plain, **info))
        rows.append(timed(f"iteration {method}", "kdops", mine, **info))
    lines = report_lines(write_run(tmp_path / "r.json", rows))
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
        rows.append(timed(f"iteration {method}", "published", plain, **info))
        rows.append(timed(f"iteration {method}", "kdops", mine, **info))
    lines = report_lines(write_run(tmp_path / "r.json", rows))
    assert next(x for x in lines if x.startswith("| FitNet |")).endswith("| noise |  |")
    assert next(x for x in lines if x.startswith("| KD-SVD |")).endswith("| 90 % |  |")
