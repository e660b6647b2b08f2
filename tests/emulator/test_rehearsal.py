"""The script for the day a GPU is there, rehearsed: every stage starts and writes its JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.emulator import library

SCRIPT = library.ROOT / "benchmarks" / "gpu_day.sh"
RUN = ["machine", "build", "gpu-tests", "contract", "benchmarks", "calibration"]
NOT_EMULATED = ["memcheck", "racecheck", "graphs", "events"]


def rehearse(folder, *options):
    # not what a worker of this run is told: pytest-benchmark times nothing in workers
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= {"PYTHON": sys.executable, "OMP_NUM_THREADS": "2"}
    command = ["bash", SCRIPT, "--rehearse", "--out", folder, *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}
    assert len(found) == len(list(folder.iterdir()))  # nothing but JSON
    return done, found


@pytest.mark.slow
def test_every_stage_runs_and_writes_its_json(built, tmp_path):
    """Half a minute, most of it imports of torch."""
    pytest.importorskip("pytest_benchmark")
    done, found = rehearse(tmp_path, "--budget", "3000")  # the host may be busy
    assert done.returncode == 0, done.stdout
    stages = found["summary"]["stages"]
    assert {name: stages[name]["outcome"] for name in stages} == {
        **dict.fromkeys(RUN, "ok"),
        **dict.fromkeys(NOT_EMULATED, "skipped"),
    }
    assert all(stages[name]["why"] for name in NOT_EMULATED)
    assert all(stages[name]["tests"]["passed"] for name in ("gpu-tests", "contract", "benchmarks"))
    timed = {
        b["extra_info"]["provider"]: b["extra_info"] for b in found["benchmarks"]["benchmarks"]
    }
    assert timed["kdops"]["device"] == timed["torch.linalg.svd"]["device"] == "cuda"
    assert timed["kdops"]["timing"] == "launches"
    assert found["machine"]["device"]["name"] == "emulated"
    calibrated = found["calibration"]["cases"]["svd 8x8"]
    assert calibrated["measured us"] > 0
    assert calibrated["predicted us"] > 0


def test_a_budget_that_is_over_stops_nothing_and_is_said(tmp_path):
    done, found = rehearse(tmp_path, "--budget", "0")
    assert done.returncode == 3, done.stdout
    outcomes = {stage["outcome"] for stage in found["summary"]["stages"].values()}
    assert outcomes == {"out of time", "skipped"}
