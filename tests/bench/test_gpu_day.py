"""What the GPU day writes down: outcomes of a run that a limit ended, and its own summary."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.day import build, summary

ROOT = Path(__file__).parents[2]
TESTS = """
import time, pytest
def test_good(): pass
def test_bad(): assert 1 + 1 == 3
def test_not_here(): pytest.skip("no reason")
def test_endless(): time.sleep(60)
"""


def pytest_with_outcomes(folder, *options):
    (folder / "test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.day.outcomes", *options]
    command += ["--rootdir", folder, "--outcomes", folder / "some.json", folder / "test_some.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe)


def test_outcomes_of_a_run_that_a_limit_ended(tmp_path):
    run = pytest_with_outcomes(tmp_path)
    deadline = time.monotonic() + 30
    while not (tmp_path / "some.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)  # into the endless test
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == pytest.ExitCode.INTERRUPTED
    found = json.loads((tmp_path / "some.json").read_text())
    assert found["ended"] == "interrupted"
    assert found["counts"] == {"passed": 1, "failed": 1, "skipped": 1}
    (text,) = found["failed"].values()
    assert "1 + 1" in text
    assert any("no reason" in reason for reason in found["skipped"])


def test_outcomes_of_a_whole_run(tmp_path):
    run = pytest_with_outcomes(tmp_path, "-k", "good")
    assert run.wait(30) == 0
    assert json.loads((tmp_path / "some.json").read_text())["ended"] == "whole"


@pytest.fixture
def summarise(tmp_path, monkeypatch, capsys):
    """summarise({file: content}, *stages) -> (exit status, outcome by stage)"""

    def run(files, *stages):
        for name, content in files.items():
            (tmp_path / name).write_text(json.dumps(content))
        monkeypatch.setattr(sys, "argv", ["summary", str(tmp_path), *stages])
        status = summary.main()
        record = json.loads((tmp_path / "summary.json").read_text())["stages"]
        assert all(name in capsys.readouterr().out for name in [stages[0].partition("=")[0]])
        return status, {name: stage["outcome"] for name, stage in record.items()}

    return run


def test_a_stage_is_ok_only_with_its_json(summarise):
    assert summarise({"a.json": {}}, "a=0:3:20") == (0, {"a": "ok"})
    assert summarise({}, "b=0:3:20") == (1, {"b": "failed"})


def test_failures_count_more_than_time(summarise):
    late, bad = "a=124:20:20", "b=1:3:20"
    assert summarise({}, late, "c=skipped:not here") == (3, {"a": "out of time", "c": "skipped"})
    assert summarise({"b.json": {}}, late, bad) == (1, {"a": "out of time", "b": "failed"})


def test_a_failed_test_is_a_failure_though_time_ran_out(summarise):
    counts = {"counts": {"passed": 5, "failed": 1, "skipped": 0}}
    assert summarise({"a.json": counts}, "a=124:20:20") == (1, {"a": "failed"})


@pytest.mark.parametrize(
    ("archs", "capability", "served"),
    [
        ("80,90", (9, 0), True),
        ("80", (8, 6), True),  # the same major version, a later minor one
        ("86", (8, 0), False),
        ("80,90", (10, 0), False),
        ("", (9, 0), False),
    ],
)
def test_architectures_that_serve_a_gpu(monkeypatch, archs, capability, served):
    import torch

    import kdops

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(kdops, "build_info", lambda: {"cuda_archs": archs})
    assert (build.missing_architecture() is None) == served
