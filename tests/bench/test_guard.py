"""The regression guard, on small made-up results."""

import pytest
from support.bench_records import case, timed, write_run

from benchmarks import guard


@pytest.mark.parametrize(
    ("mine", "status", "word"),
    [
        (0.3e-3, 0, "0 warnings"),
        (1.2e-3, 0, "0 warnings"),
        (1.4e-3, 0, "warning:"),
        (1.6e-3, 1, "FAILED"),
    ],
)
def test_guard(tmp_path, capsys, mine, status, word):
    (tmp_path / "committed").mkdir()
    write_run(tmp_path / "committed" / "cpu.json", case("g", 8e-3, 1e-3))
    # the whole machine is three times slower: no matter
    run = write_run(tmp_path / "run.json", case("g", 24e-3, 3 * mine) + case("new", 1.0, 9.0))
    assert guard.main([str(run), "--results", str(tmp_path / "committed")]) == status
    printed = capsys.readouterr().out
    assert word in printed
    assert "1 cases compared" in printed


@pytest.mark.parametrize(("mine", "status"), [(1.1e-3, 0), (1.6e-3, 1)])
def test_guard_is_not_disturbed_by_another_form(tmp_path, capsys, mine, status):
    """The only other form took four times as long where the record was made: it asked the system
    for new pages at every allocation. Our own seconds say that nothing has grown."""
    run = case("g", 6e-3, mine)
    assert _guard(tmp_path, capsys, run, case("g", 24e-3, 1e-3))[0] == status


def test_guard_is_not_disturbed_by_other_load(tmp_path, capsys):
    """Most rounds of a busy machine are slow; the fastest is not."""
    committed, run = case("g", 8e-3, 1e-3), case("g", 8e-3, 9e-3)
    run[1]["stats"]["min"] = committed[1]["stats"]["min"]
    assert _guard(tmp_path, capsys, run, committed)[0] == 0


def test_guard_compares_with_records_of_the_same_instruction_set(tmp_path, capsys):
    """Of whatever processor: a guard that knows only machines that are gone cannot fail."""
    (tmp_path / "committed").mkdir()
    where = ["--results", str(tmp_path / "committed")]
    slow = write_run(tmp_path / "run.json", case("g", 8e-3, 5e-3), {"family": 23})
    write_run(tmp_path / "committed" / "wide.json", case("g", 8e-3, 1e-3), isa="avx512")
    assert guard.main([str(slow), *where]) == 1
    printed = capsys.readouterr().out
    assert "nothing to compare with: this run is of avx2" in printed
    assert "holds records of avx512" in printed
    write_run(tmp_path / "committed" / "same.json", case("g", 8e-3, 1e-3), {"family": 25})
    assert guard.main([str(slow), *where]) == 1
    assert "FAILED: g: kdops/torch 0.6250, committed 0.1250" in capsys.readouterr().out
    quick = write_run(tmp_path / "quick.json", case("g", 8e-3, 1e-3), {"family": 23})
    assert guard.main([str(quick), *where]) == 0


def test_guard_prefers_records_of_its_own_processor(tmp_path, capsys):
    (tmp_path / "committed").mkdir()
    write_run(tmp_path / "committed" / "other.json", case("g", 8e-3, 1e-3), {"family": 25})
    write_run(tmp_path / "committed" / "own.json", case("g", 8e-3, 3e-3), {"family": 23})
    where = ["--results", str(tmp_path / "committed")]
    for mine, status in ((4e-3, 0), (5e-3, 1)):
        run = write_run(tmp_path / "run.json", case("g", 8e-3, mine), {"family": 23})
        assert guard.main([str(run), *where]) == status
    assert "committed 0.3750" in capsys.readouterr().out


def test_guard_fails_where_no_case_is_known(tmp_path, capsys):
    status, printed = _guard(tmp_path, capsys, case("new", 1.0, 1.0), case("old", 1.0, 1.0))
    assert status == 1
    assert "nothing to compare with" in printed


def test_guard_takes_the_best_of_several_records(tmp_path, capsys):
    """A record of a disturbed hour must not loosen what a quiet one has shown."""
    (tmp_path / "committed").mkdir()
    write_run(tmp_path / "committed" / "quiet.json", case("g", 8e-3, 1e-3))
    write_run(tmp_path / "committed" / "busy.json", case("g", 8e-3, 4e-3))
    run = write_run(tmp_path / "run.json", case("g", 8e-3, 5e-3))
    assert guard.main([str(run), "--results", str(tmp_path / "committed")]) == 1
    assert "committed 0.1250" in capsys.readouterr().out


def test_guard_counts_the_better_of_two_runs(tmp_path, capsys):
    (tmp_path / "committed").mkdir()
    write_run(tmp_path / "committed" / "cpu.json", case("g", 8e-3, 1e-3))
    first = write_run(tmp_path / "first.json", case("g", 8e-3, 5e-3))
    second = write_run(tmp_path / "second.json", case("g", 8e-3, 1e-3))
    where = ["--results", str(tmp_path / "committed")]
    assert guard.main([str(first), *where]) == 1
    assert guard.main([str(first), str(second), *where]) == 0
    assert guard.main([str(first), str(first), *where]) == 1
    assert "FAILED: g: kdops/torch" in capsys.readouterr().out


def test_guard_writes_down_what_to_look_at_again(tmp_path):
    (tmp_path / "committed").mkdir()
    write_run(tmp_path / "committed" / "cpu.json", case("a b", 8e-3, 1e-3) + case("c", 8e-3, 1e-3))
    run = write_run(tmp_path / "run.json", case("a b", 8e-3, 5e-3) + case("c", 8e-3, 1e-3))
    names = tmp_path / "failed"
    guard.main([str(run), "--results", str(tmp_path / "committed"), "--failed", str(names)])
    assert names.read_text() == "a b\n"


@pytest.mark.parametrize(("mine", "status"), [(1e-3, 0), (1.4e-3, 0), (1.6e-3, 1)])
def test_guard_asks_every_other_form(tmp_path, capsys, mine, status):
    """One of them that is four times faster today says nothing about ours."""
    committed = [*case("g", 8e-3, 1e-3), timed("g", "torch GEMM", 2e-3)]
    run = [*case("g", 2e-3, mine), timed("g", "torch GEMM", 2e-3)]
    found, printed = _guard(tmp_path, capsys, run, committed)
    assert found == status
    assert ("FAILED: g: kdops/torch GEMM" in printed) == (status == 1)


def _guard(tmp_path, capsys, run, committed):
    (tmp_path / "committed").mkdir()
    write_run(tmp_path / "committed" / "cpu.json", committed)
    path = write_run(tmp_path / "run.json", run)
    status = guard.main([str(path), "--results", str(tmp_path / "committed")])
    return status, capsys.readouterr().out


def test_guard_names_what_is_on_one_side_only(tmp_path, capsys):
    committed = case("both", 8e-3, 1e-3, slow=False) + case("gone", 8e-3, 1e-3, slow=False)
    committed += case("full run only", 8e-3, 1e-3, slow=True)
    run = case("both", 8e-3, 1e-3, slow=False) + case("new", 1e-3, 9e-3)
    run += case("half", 1e-3, 9e-3)[1:]  # its baseline was left out
    status, printed = _guard(tmp_path, capsys, run, committed)
    assert status == 0
    assert "1 cases without a committed ratio at this thread count: new" in printed
    assert "1 committed quick cases that were not run: gone" in printed
    assert "1 cases compared" in printed


@pytest.mark.parametrize(("scale", "status"), [(1e-6, 0), (1e-3, 1)])
def test_guard_only_warns_of_tiny_cases(tmp_path, capsys, scale, status):
    found = _guard(tmp_path, capsys, case("g", scale, 30 * scale), case("g", scale, scale))
    assert found[0] == status
    assert ("FAILED" if status else "warning:") in found[1]
