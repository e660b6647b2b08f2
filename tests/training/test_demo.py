"""The demo's runs: options, every recipe, the grid of weights, the parts of an iteration."""

import numpy as np
import pytest
import torch
from support.few_digits import TINY, few_digits

from kdops import distillers
from kdops.demo import timing
from kdops.demo.arguments import parse
from kdops.demo.methods import RECIPES
from kdops.demo.nets import STAGES
from kdops.demo.record import BASELINE
from kdops.demo.run import Demo, best

pytest.importorskip("sklearn")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_recipe_for_every_method():
    assert set(RECIPES) == set(distillers.__all__)


def test_arguments():
    assert parse(["--methods", "rkd,SoftTarget,rkd"]).methods == ["RKD", "SoftTarget"]
    assert parse(["--methods", "all"]).methods == list(RECIPES)
    assert parse(["--data", "cifar10"]).batch == 128
    assert parse(["--images", "500,100"]).images == [100, 500]
    steps = {n: parse(["--data", "mnist", "--images", n]).steps for n in ("100", "500")}
    assert steps == {"100": 8, "500": 8}
    for bad in (["--methods", "Magic"], ["--seeds", "0"], ["--rounds", "-1"], ["--page", "p.md"]):
        with pytest.raises(SystemExit):
            parse(bad)


@pytest.fixture(scope="module")
def small():
    """A few digits and a teacher that has seen them."""
    images = few_digits(120, 200)
    args = parse([*TINY, "--epochs", "3", "--steps", "6", "--images", "120", "--seeds", "1",
                  "--teacher-epochs", "3"])  # fmt: skip
    demo = Demo(args, images)
    demo.student(BASELINE, 120, 0)
    return demo


@pytest.mark.parametrize("name", RECIPES)
def test_every_method_trains_a_student(small, name):
    """The sum that is minimised falls, and so does the distiller's own loss for most."""
    _, rows = small.student(name, 120, 0)
    weight = RECIPES[name].weight
    first, last = (r["loss"] + weight * r["distill"] for r in (rows[0], rows[-1]))
    assert last < first
    assert all(np.isfinite(list(r.values())).all() for r in rows)


@pytest.mark.parametrize("name", ["MHGD", "IEP"])
def test_preparation_learns_on_digits(small, name):
    """What learns from the teacher alone: its loss falls on the demo's images."""
    setting = small.setting(120, 0)
    student = setting.make_student()
    method = getattr(distillers, name).from_sample(*setting.features(student, STAGES, "output"))
    history = method.prepare(setting.stream(STAGES, "output"), epochs=6)
    assert history[-1] < 0.9 * history[0]


def test_a_resumed_run_trains_the_same_student(small):
    """A second process knows no baseline: BornAgain trains it anew, and its student is the same."""
    first, _ = small.student("BornAgain", 120, 0)
    small.baselines.clear()
    second, _ = small.student("BornAgain", 120, 0)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def test_an_iteration_splits_into_parts(small):
    times = timing.split(small, [BASELINE, "RKD", "FitNet", "KDSVD"], 1)
    assert times["RKD"]["plain"]
    assert times["FitNet"]["plain"] is None
    assert times[BASELINE]["kdops"]["method"] == 0
    assert times["KDSVD"]["kdops"]["second"] > 0
    assert times["RKD"]["kdops"]["second"] == 0
    for parts in (p for t in times.values() for p in t.values() if p):
        assert parts["network"] > 0
        assert min(parts.values()) >= 0


def test_parts_add_up_whatever_the_noise():
    medians = {("teacher",): 9.0, ("A", "kdops", "once"): 8.0, ("A", "kdops", "clipped"): 7.5}
    parts = timing._parts(medians, "teacher", "A", "kdops")
    assert parts == {"network": 7.5, "method": 0.0, "second": 0.0}
    medians["A", "kdops", "clipped"] = 12.0
    parts = timing._parts(medians, "teacher", "A", "kdops")
    assert parts == {"network": 8.0, "method": 0.0, "second": 4.0}


def test_the_best_weight_of_equal_ones_is_the_nearest():
    assert best({"0.2": 80.0, "1": 81.0, "5": 81.0}, 1.0) == 1.0
    assert best({"0.2": 82.0, "1": 81.0, "5": 81.0}, 1.0) == 0.2
