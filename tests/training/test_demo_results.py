"""What the demo writes: its file of results, from which it goes on, table, picture and page."""

import json
from pathlib import Path

import pytest
from support.few_digits import TINY, few_digits

from kdops.demo import main, page, picture, report
from kdops.demo.arguments import parse
from kdops.demo.methods import RECIPES
from kdops.demo.record import BASELINE, Record, ranked
from kdops.demo.run import GRID, Demo, best

pytest.importorskip("sklearn")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_writes_its_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kdops.demo.course.digits", few_digits)
    options = ["--seeds", "2", "--methods", "SoftTarget,RKD", "--out", str(tmp_path)]
    assert main([*TINY, *options]) == 0
    record = json.loads((tmp_path / "demo.json").read_text())
    assert set(record["methods"]) == {BASELINE, "SoftTarget", "RKD"}
    assert set(record["methods"]["RKD"]["accuracy"]["40"]) == {"0", "1"}
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "a large network teaches small ones, on 8 x 8" in printed
    assert "6 students, ResNet-8, on 40 of them" in printed  # what it will do, and how long
    assert "about" in printed.split("teacher ")[0]
    assert "demo.json" in printed
    assert report.table(record) in printed


def test_a_stopped_run_goes_on(tmp_path, capsys, monkeypatch):
    """What the file holds is not trained again; without anything to do, not even a teacher is."""
    monkeypatch.setattr("kdops.demo.course.digits", few_digits)
    file = tmp_path / "runs.json"
    options = [*TINY, "--rounds", "0", "--json", str(file), "--out", str(tmp_path), "--methods"]
    assert main([*options, "RKD", "--seeds", "1"]) == 0
    before = json.loads(file.read_text())["methods"]["RKD"]["accuracy"]["40"]
    trained = []
    monkeypatch.setattr(
        Demo, "train", lambda self, name, *a, **k: trained.append(name) or [{"ms": 0.0}]
    )
    assert main([*options, "RKD", "--seeds", "1"]) == 0
    assert trained == []
    assert main([*options, "RKD,SoftTarget", "--seeds", "2"]) == 0
    assert trained == [BASELINE, "SoftTarget", BASELINE, "RKD", "SoftTarget"]  # first the teacher
    after = json.loads(file.read_text())["methods"]["RKD"]["accuracy"]["40"]
    assert after["0"] == before["0"]
    capsys.readouterr()
    assert main([*options, "RKD", "--batch", "10"]) == 2
    assert "holds runs of another batch" in capsys.readouterr().err
    file.write_text("{}")
    assert main([*options, "RKD"]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_weights_are_chosen_by_the_grid(tmp_path, monkeypatch):
    monkeypatch.setattr("kdops.demo.course.digits", few_digits)
    file = tmp_path / "runs.json"
    assert main([*TINY, "--rounds", "0", "--json", str(file), "--out", str(tmp_path), "--tune",
                 "--methods", "RKD", "--seeds", "1"]) == 0  # fmt: skip
    rkd = json.loads(file.read_text())["methods"]["RKD"]
    assert len(rkd["grid"]) == len(GRID)
    assert rkd["weight"] == best(rkd["grid"], RECIPES["RKD"].weight)
    assert rkd["accuracy"]["40"]["0"] > 0


def test_results_of_another_weight_are_dropped(tmp_path):
    settings = vars(parse(TINY))
    record = Record(tmp_path / "a.json", settings, resume=True)
    record.add("RKD", 0.1, 40, 0, 50.0)
    assert Record(tmp_path / "a.json", settings, resume=True).has("RKD", 0.1, 40, 0)
    assert not Record(tmp_path / "a.json", settings, resume=True).has("RKD", 0.5, 40, 0)
    assert not Record(tmp_path / "a.json", settings, resume=False).has("RKD", 0.1, 40, 0)


PARTS = {"network": 10.0, "method": 5.0, "second": 2.0}


def made_record(times):
    """Three methods, two numbers of images, three seeds; FSP has not got all."""

    def runs(*values):
        return {str(seed): value for seed, value in enumerate(values)}

    methods = {
        BASELINE: {"weight": 1.0, "accuracy": {"100": runs(70, 71, 72), "200": runs(80, 81, 82)}},
        "RKD": {"weight": 0.1, "accuracy": {"100": runs(75, 77, 76), "200": runs(82, 80, 81)}},
        "KDSVD": {"weight": 1.0, "accuracy": {"100": runs(60, 61, 63), "200": runs(79)}},
        "FSP": {"weight": 0.5, "accuracy": {"100": runs(90)}},
    }
    if times:
        for method in methods.values():
            method["times"] = {"kdops": PARTS, "plain": {**PARTS, "method": 0.4}}
    teacher = {"name": "ResNet-14", "student": "ResNet-8", "accuracy": 97.0, "images": 2000,
               "test_images": 1000, "machine": report.machine()}  # fmt: skip
    return {"settings": vars(parse(TINY)), "teacher": teacher, "methods": methods, "seconds": 1.0}


@pytest.mark.parametrize("times", [True, False])
def test_picture(times):
    figure = picture.figure(made_record(times))
    accuracy, *others = figure.axes
    assert len(others) == times
    labels = [tick.get_text() for tick in accuracy.get_yticklabels()]
    assert labels[0] == "FSP"  # best first
    assert len(labels) == 4
    shown = {text.get_text() for text in accuracy.texts}
    assert {"90.0", "76.0", "81.0", "79.0"} <= shown
    if times:
        bars = {text.get_text() for text in others[0].texts}
        assert {"10", "5.0", "2.0", "17 kdops", "12 plain (method 0.4)"} <= bars


def test_ranking():
    record = made_record(False)
    assert ranked(record, 200) == [BASELINE, "RKD", "KDSVD"]
    assert ranked(record) == ["FSP", "RKD", BASELINE, "KDSVD"]  # most are known with 100 images


def test_page():
    text = page.text(made_record(False), "accuracy.json")
    assert "| RKD | 0.1 | 76.0 ± 1.0 | +5.0 ± 0.6 | helps |" in text
    assert "| KDSVD | 1 | 61.3 ± 1.5 | -9.7 ± 0.3 | harms |" in text
    assert "| RKD | 0.1 | 81.0 ± 1.0 | +0.0 ± 1.0 | open |" in text
    assert page._gain([1.0, 2.0, 3.0])[1] == "open"  # 3.5 standard errors are not enough of three
    assert page._gain([1.0, 2.0, 3.0, 1.0, 2.0])[1] == "helps"
    assert "| KDSVD | 1 | 79.0 | -1.0 | one seed |" in text
    assert "0, 1, 2 with 100 (fewer by 1 of the methods) and 200 (fewer by 1" in text
    assert "- 100 images: 1 help, 1 harm (KDSVD)." in text
    assert "- 200 images: 0 help, 0 harm." in text
    assert "Whatever the number of images, these help: none." in text
    everywhere = made_record(False)
    everywhere["methods"]["RKD"]["accuracy"]["200"] = {"0": 90, "1": 91, "2": 92}
    assert "these help: RKD." in page.text(everywhere, "accuracy.json")


def test_the_documentation_shows_its_record(tmp_path):
    docs = Path(__file__).parents[2] / "docs"
    made = tmp_path / "page.md"
    assert main(["--json", str(docs / "accuracy.json"), "--page", str(made)]) == 0
    assert made.read_text() == (docs / "accuracy.md").read_text()
