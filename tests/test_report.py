"""The benchmark report and the regression guard, on small made-up results."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # last: an installed kdops stays in front

from benchmarks import guard, report


def _bench(group, provider, median, *, error=1e-7, tolerance=1e-4, **info):
    info = {"op": "svd", "label": "8x8", "dtype": "float32", "mode": "forward", **info}
    info |= {"provider": provider, "error": error, "tolerance": tolerance, "threads": 2}
    info.setdefault("baseline", "torch")
    stats = {"median": median, "iqr": median / 10}
    return {"group": group, "stats": stats, "extra_info": info}


def _write(path, benches):
    machine = {"torch": "2.13", "threads": 2, "cpu": {"brand_raw": "a CPU"}}
    path.write_text(json.dumps({"machine_info": machine, "benchmarks": benches}))
    return path


def _case(group, plain, mine, **info):
    return [_bench(group, "torch", plain, **info), _bench(group, "kdops", mine, **info)]


def _lines(path):
    return report.markdown(*report.load(path)).splitlines()


def test_speedups_and_losses(tmp_path):
    rows = _case("fast", 8e-3, 1e-3) + _case("slow", 1e-3, 2e-3, label="9x9")
    lines = _lines(_write(tmp_path / "r.json", rows))
    assert any("| torch | 8 ms |" in line and line.endswith("| 8.00x |") for line in lines)
    assert any("0.50x (slower)" in line for line in lines)
    assert "- slow: torch is 2.00x faster" in lines
    assert not any(line.startswith("- fast") for line in lines)


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
    _, groups = report.load(_write(tmp_path / "r.json", rows))
    assert report.ours(groups["overhead"]).median == pytest.approx(1e-5)


def test_exponent_uses_large_sizes():
    points = [(2.0**i, 5.0 + 8.0**i) for i in range(8)]  # a constant hides the cube at first
    assert report.exponent(points) == pytest.approx(3.0, abs=0.01)


def _everything():
    rows = _case("fast", 8e-3, 1e-3)
    for n in (8, 16, 32, 64):
        theory = {"torch": (3, 2), "kdops": (3, 2)}
        info = {"sweep": "svd over n", "size": n, "theory": theory, "op": "scaling"}
        info["peak_mb"] = n * n / 10  # 8 x 8 is too small to be counted
        rows += _case(f"sweep {n}", 1e-6 * n**3, 1e-7 * n**3, **info)
    for method, plain, mine in (
        ("SoftTarget", 0.1, 0.1), ("KD-SVD", 0.5, 0.12), ("part: svd", 0.3, 0.01)
    ):  # fmt: skip
        info = {"op": "iteration", "label": "a pair", "method": method, "baseline": "published"}
        rows.append(_bench(f"iteration {method}", "published", plain, **info))
        rows.append(_bench(f"iteration {method}", "kdops", mine, **info))
    return rows


def test_iteration_surcharge_and_scaling(tmp_path):
    lines = _lines(_write(tmp_path / "r.json", _everything()))
    row = next(line for line in lines if line.startswith("| KD-SVD |"))
    assert row == "| KD-SVD | 500 ms | 120 ms | 400.0 ms | 20.0 ms | 95 % |"
    assert "| svd over n | kdops | 64 | 26.2 ms | 3.00 | 3 | 2.00 | 2 |" in lines


def test_plots(tmp_path):
    pytest.importorskip("matplotlib")
    path = _write(tmp_path / "r.json", _everything())
    report.main([str(path), "--out", str(tmp_path / "out")])
    made = {p.name for p in (tmp_path / "out").iterdir()}
    assert made == {"report.md", "speedup.png", "scaling-1.png", "iteration.png"}


@pytest.mark.parametrize(
    ("mine", "status", "word"),
    [(1.2e-3, 0, "0 warnings"), (1.5e-3, 0, "warning:"), (2.5e-3, 1, "FAILED")],
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
