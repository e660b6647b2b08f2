"""benchmarks.predict without nvcc: from the cost of blocks to times, and budgets."""

import json
import math

import pytest

from benchmarks import budgets
from benchmarks.predict import model
from benchmarks.predict.budgets import FILE, MARGINS

COUNTS = {"float32": 600, "shared": 200}
PARTS = {"arithmetic": 3000.0, "shared memory": 1000.0}
UNITS = {"issue": 500.0, "L2": 100.0}


def launch(blocks=132, threads=128, registers=32, shared=0, run=((4000, 500, 2000),), **more):
    return {
        "kernel": "_ZN5kdops4gram3gpu19gram_product_kernelIfE", "blocks": blocks,
        "threads": threads, "registers": registers, "shared": shared, "local": 0, "stack": 0,
        "code": 900, "slots": sum(block[2] for block in run), "shared_waves": 300,
        "shared_least": 200, "first_sectors": 0, "counts": COUNTS, "parts": PARTS,
        "units": UNITS, "run": [list(block) for block in run], **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "expected"),
    [
        (128, 32, 0, 16),  # 64 warps
        (256, 255, 0, 1),  # 65536 registers
        (64, 64, 0, 16),
        (32, 16, 0, 32),  # blocks
        (128, 32, 100 << 10, 2),
        (1024, 64, 0, 1),
    ],
)
def test_blocks_that_a_multiprocessor_holds(threads, registers, shared, expected):
    found = model.resident(launch(threads=threads, registers=registers, shared=shared))
    assert found == expected


def test_blocks_overlap_their_waiting_and_share_the_units():
    one, unit = model.time(launch())
    assert (one, unit) == (pytest.approx(4000 / model.CLOCK), False)
    assert model.time(launch(blocks=8 * 132))[0] == pytest.approx(one)  # 8 blocks wait at once
    many, unit = model.time(launch(blocks=16 * 132))
    assert (many, unit) == (pytest.approx(16 * 500 / model.CLOCK), True)
    alone, unit = model.time(launch(blocks=4 * 132, registers=255, threads=256))
    assert (alone, unit) == (pytest.approx(4 * one), False)


def test_a_single_round_waits_for_its_slowest_block():
    run = ((4000, 500, 2000), (8000, 500, 2000))
    assert model.time(launch(run=run))[0] == pytest.approx(8000 / model.CLOCK)


def test_the_memory_gives_what_the_inputs_hold_and_no_more():
    far = launch(first_sectors=1 << 20)
    assert model.time(far)[0] == pytest.approx(132 * (1 << 25) / model.MEMORY)
    assert model.time(far, most_bytes=4.8e7)[0] == pytest.approx(10)


def test_a_case_is_the_sum_of_its_launches():
    one = model.prediction_of([launch()], math.inf)
    assert one.instructions == 132 * 2000
    assert one.floor == pytest.approx(2000 / 4 / model.CLOCK)
    assert one.counts == {"float32": 600 * 132, "shared": 200 * 132}
    assert sum(one.parts.values()) == pytest.approx(one.predicted)
    assert one.dominated_by() == "arithmetic 75%, shared memory 25%"
    assert one.kernels[0]["kernel"] == "gram_product_kernel"
    three = model.prediction_of([launch()] * 3, math.inf)
    assert three.predicted == pytest.approx(3 * one.predicted)
    assert model.prediction_of([launch(blocks=66)], 0, times=2) == one


def test_idle_multiprocessors_and_full_units_are_named():
    few = model.prediction_of([launch(blocks=16)], 0).dominated_by()
    assert few.endswith("; 16 of 132 multiprocessors")
    full = model.prediction_of([launch(blocks=16 * 132)], 0).dominated_by()
    assert full == "issue all the time 100%"


def test_local_arrays_of_the_source_are_no_spills():
    kernels = model.prediction_of([launch(stack=64, local=64), launch(stack=80, local=64)], 0)
    assert [kernel["spilled"] for kernel in kernels.kernels] == [0, 16]


ROW = {"instructions": 100.0, "predicted": 20.0, "launches": 3, "spilled": 0}


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, False),
        ({"instructions": 104.0}, False),
        ({"instructions": 106.0}, True),
        ({"predicted": 20.9}, False),
        ({"predicted": 21.1}, True),
        ({"launches": 4}, True),
        ({"spilled": 8}, True),
        ({"instructions": 50.0, "predicted": 9.0, "launches": 1}, False),
    ],
)
def test_budgets(change, refused):
    complaints = budgets.excesses({"case": {**ROW, **change}}, {"case": ROW}, MARGINS)
    assert bool(complaints) == refused
    if refused:
        assert f"case: {next(iter(change))}" in complaints[0]


def test_a_case_needs_a_budget(tmp_path):
    assert "no budget" in budgets.excesses({"new": ROW}, {}, MARGINS)[0]
    budgets.save({"a": ROW}, tmp_path / "b.json")
    budgets.save({"new": ROW}, tmp_path / "b.json")
    assert budgets.load(tmp_path / "b.json") == {"a": ROW, "new": ROW}


def test_every_case_has_a_budget_and_no_other_is_committed():
    from benchmarks.predict.cases import CASES

    assert list(json.loads(FILE.read_text())) == [case.name for case in CASES]
