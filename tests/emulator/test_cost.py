"""The clock of benchmarks.predict: kernels whose cost is known from their text, and the budgets."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.emulator import library

STEPS = 256  # of faults/known_costs.cu
ONES = np.ones(1024, np.float32)


@pytest.fixture
def cost(runtime, array, call):
    """cost(kernel, *arguments) -> what its one launch has cost."""

    def launch(name, *arguments, most_blocks=0):
        x = array(ONES)
        runtime.emulator_start_recording(most_blocks)
        said = call(name, x, *map(ctypes.c_int, arguments))
        launches = json.loads(runtime.emulator_stop_recording())
        assert said == ""
        (found,) = launches
        return found

    return launch


def cycles(found):
    return found["run"][0][0]


def test_a_chain_takes_the_latency_of_every_step(cost):
    found = cost("chain")
    assert found["counts"]["float32"] == STEPS
    assert found["parts"]["arithmetic"] == pytest.approx(4 * STEPS, rel=0.05)
    assert cycles(found) == pytest.approx(4 * STEPS + 600, rel=0.05)  # its input is far away


def test_independent_steps_take_an_issue_slot_each(cost):
    found = cost("independent", 32)
    assert cycles(found) - 600 < 1.4 * STEPS  # one warp issues every cycle
    full = [cost("independent", threads)["run"][0][1] for threads in (128, 1024)]
    assert full[1] == pytest.approx(8 * full[0])  # 32 warps on four schedulers
    assert full[1] == pytest.approx(8 * STEPS, rel=0.3)


@pytest.mark.parametrize(("stride", "waves"), [(1, 1), (2, 2), (16, 16), (31, 1), (0, 1)])
def test_bank_conflicts(cost, stride, waves):
    found = cost("banks", stride)
    loads = found["shared_least"] - 32  # without the stores that fill it
    assert (found["shared_waves"] - 32) / loads == waves


def test_every_barrier_costs(cost):
    few, many = cost("barriers", 10), cost("barriers", 110)
    assert many["barriers"] - few["barriers"] == 100
    assert 20 <= (cycles(many) - cycles(few)) / 100 <= 60


def test_machine_code_is_described(cost):
    found = cost("chain")
    assert found["kernel"].endswith("chain_kernelEPff")
    assert (found["blocks"], found["threads"], found["stack"]) == (1, 32, 0)
    assert STEPS < found["code"] < 2 * STEPS
    assert 0 < found["registers"] < 32


def test_blocks_that_are_left_out(cost):
    found = cost("many_blocks", 50, most_blocks=3)
    assert (found["blocks"], len(found["run"])) == (50, 3)
    assert len({tuple(block) for block in found["run"]}) == 1


def test_what_left_out_blocks_would_have_written_may_be_read(runtime, array, call):
    runtime.emulator_start_recording(1)
    assert call("chain", array(32)) == ""
    runtime.emulator_stop_recording()
    assert "nobody wrote" in call("chain", array(32))


def check(*options):
    """`python -m benchmarks.predict --check` in a process of its own, where torch is not loaded."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_PLUGINS"}
    command = [sys.executable, "-m", "benchmarks.predict", "--check", *options]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=library.ROOT, env=environment
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode, done.stdout


@pytest.mark.slow
def test_no_case_is_above_its_budget(built):
    status, text = check("--quick")
    assert status == 0, text
    assert text.count("\n") >= 14


@pytest.mark.slow
def test_a_cost_that_grew_by_six_percent_is_seen(built, tmp_path):
    """The planted change is in the budget: the same excess, without another compilation."""
    from benchmarks import budgets
    from benchmarks.predict.budgets import FILE

    row = budgets.load(FILE)["svd 8x8"]
    smaller = {name: row[name] / 1.06 for name in ("instructions", "predicted")}
    budgets.save({"svd 8x8": {**row, **smaller}}, tmp_path / "planted.json")
    status, text = check("-k", "svd 8x8", "--budgets", str(tmp_path / "planted.json"))
    assert status == 1
    assert all(f"svd 8x8: {name}" in text for name in smaller)
