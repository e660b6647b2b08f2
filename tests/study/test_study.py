"""The studies: every declaration in miniature, the runner, the table, resuming."""

import json
import statistics
from itertools import product

import pytest
import torch

from kdops.demo.data import digits
from kdops.demo.nets import accuracy
from kdops.study import STUDIES, Lab, Published, Study, _report, _run, course, main
from kdops.study._data import OFFSETS, best_offset
from kdops.study._teachers import kendall
from kdops.study.course import Course, part, share

pytest.importorskip("sklearn")
pytestmark = pytest.mark.usefixtures("one_thread")


def tiny():
    images = digits(60, 80)
    images.test = tuple(x[:50] for x in images.test)
    return images


@pytest.fixture(scope="module")
def lab():
    """One teacher of each depth for all studies."""
    return Lab(Course(tiny(), batch=20, epochs=1))


# What the studies have no cell for: 8 x 8 digits end in 2 x 2 maps; no class is missing from all.
EMPTY = {
    "vectors": {("KDSVD", "8"), ("KDSVD", "16")},
    "transfer": {(row, "all classes") for row in STUDIES["transfer"].rows[2:]},
}


@pytest.mark.parametrize("name", STUDIES)
def test_every_cell_of_a_study(lab, name):
    """Of large tables every row and every column once."""
    study = STUDIES[name]
    places = list(product(study.rows, study.columns))
    if name in ("rates", "clip", "combinations"):
        places = [(r, study.columns[i % len(study.columns)]) for i, r in enumerate(study.rows)]
        places += [(study.rows[-1], column) for column in study.columns]
    cells = {place: study.cell(lab, *place, 0) for place in places}
    assert {place for place, x in cells.items() if x is None} == EMPTY.get(name, set())
    assert all(0 <= value <= 100 for value in cells.values() if value is not None)
    if study.remark is not None:
        assert study.remark(cells, study.rows, study.columns)


def test_the_same_cell_has_the_same_number(lab):
    """Whatever was trained before: a study that goes on from a file is the one run at once."""
    fresh = Lab(Course(tiny(), batch=20, epochs=1))
    for name, row, column in [
        ("rates", "MHGD", "0.5"),
        ("stages", "two stages", "FSP"),
        ("born-again", "ensemble of all so far", "2"),
    ]:
        cell = STUDIES[name].cell
        assert cell(fresh, row, column, 1) == cell(lab, row, column, 1)


def test_parts_of_the_images():
    images = tiny()
    rows = share(images, 0.25, seed=3)
    labels = images.train[1]
    counts = torch.bincount(labels, minlength=10)
    kept = torch.bincount(labels[rows], minlength=10)
    assert kept.tolist() == [max(round(0.25 * int(n)), 1) for n in counts]
    assert len(set(rows.tolist())) == len(rows)
    assert not torch.equal(rows, share(images, 0.25, seed=4))
    small = part(images, rows, 20)
    assert len(small.train[1]) == 20  # repeated, for a batch to be had
    assert set(small.train[1].tolist()) == set(labels[rows].tolist())
    assert len(small.for_teacher().train[1]) == 80
    without = part(images, labels != 3, 10)
    assert 3 not in without.train[1]
    assert len(without.train[1]) == int((labels != 3).sum()) // 10 * 10


def test_the_usual_images(monkeypatch):
    monkeypatch.setattr(course, "has_mnist", lambda: False)
    assert course.usual_images().name == "digits"
    monkeypatch.setattr(course, "has_mnist", lambda: True)
    monkeypatch.setattr(course, "mnist", lambda: "28 x 28")
    assert course.usual_images() == "28 x 28"


def test_as_many_steps_on_less_data(lab, monkeypatch):
    seen = []
    original = lab.course.train

    def counting(net, prepared, recipe, seed, images, **options):
        def step(batch, epoch):
            seen.append(len(batch[1]))
            return torch.nn.functional.cross_entropy(net(batch[0]), batch[1]), None

        prepared.step = step
        original(net, prepared, recipe, seed, images, **options)

    monkeypatch.setattr(lab.course, "train", counting)
    STUDIES["rates"].cell(lab, "alone", "0.1", 0)
    assert seen == [20, 20, 20]  # as of all 60


def test_the_bias_of_missing_classes():
    logits = torch.tensor([[2.0, 0.0], [2.0, 1.1], [2.0, -9.0]])
    missing = torch.tensor([False, True])
    assert best_offset(logits, torch.tensor([0, 1, 0]), missing) == 1.0
    assert best_offset(logits, torch.tensor([0, 0, 0]), missing) == OFFSETS[0] == 0


def test_a_soft_target_teaches_without_labels(lab):
    """The transfer study's soft student never sees the task's loss: wrong labels change nothing."""
    own = Course(tiny(), batch=20, epochs=1)
    x, y = own.images.train
    one = STUDIES["transfer"].cell(Lab(own, {("teacher", 2): lab.teacher()}),
                                   "soft targets", "all classes", 0)  # fmt: skip
    own.images.train = (x, (y + 1) % 10)
    two = STUDIES["transfer"].cell(Lab(own, {("teacher", 2): lab.teacher()}),
                                   "soft targets", "all classes", 0)  # fmt: skip
    assert one == two


def test_kendall():
    assert kendall([1, 2, 3], [10, 20, 30]) == 1
    assert kendall([1, 2, 3], [3, 2, 1]) == -1
    assert kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    remark = STUDIES["teachers"].remark
    cells = {("a", "x"): 1.0, ("b", "x"): 2.0, ("a", "y"): 5.0, ("b", "y"): 4.0}
    assert "x and y: -1.00" in remark(cells, ["a", "b"], ["x", "y"])


def test_an_ensemble_is_the_mean_of_logits(lab):
    study = STUDIES["born-again"]
    found = study.cell(lab, "ensemble of all so far", "1", 0)
    first, second = lab.made["generation", 0, 0], lab.made["generation", 1, 0]
    x, y = lab.course.images.test
    mean = lambda z: (first(z) + second(z)) / 2  # noqa: E731
    with torch.no_grad():
        first.eval(), second.eval()
        right = 100.0 * int((mean(x).argmax(1) == y).sum()) / len(y)
    assert found == right
    assert study.cell(lab, "the generation itself", "1", 0) == accuracy(second, x, y)


NUMBERS = {"0": {("a", "x"): 1.0, ("b", "x"): 4.0}, "1": {("a", "x"): 2.0, ("b", "x"): 8.0}}


def counted(calls):
    def cell(lab, row, column, seed):
        calls.append((row, column, seed))
        return None if column == "y" else NUMBERS[str(seed)][row, column]

    published = Published("A paper", ["x", "y"], {"a": [70.0, 71.5]})
    return Study("toy", "Which?", ["a", "b"], ["x", "y"], cell, axis="letters",
                 published=published)  # fmt: skip


def test_a_run_its_table_and_going_on(tmp_path, capsys):
    calls = []
    studies = {"toy": counted(calls)}
    options = ["toy", "--epochs", "1", "--batch", "20", "--out", str(tmp_path)]
    assert _run.run(studies, [*options, "--seeds", "1", "--rows", "a"], tiny()) == 0
    assert calls == [("a", "x", 0), ("a", "y", 0)]
    assert _run.run(studies, options, tiny()) == 0
    assert calls[2:] == [("b", "x", 0), ("b", "y", 0), ("a", "x", 1), ("a", "y", 1), ("b", "x", 1),
                         ("b", "y", 1)]  # fmt: skip
    assert _run.run(studies, options, tiny()) == 0
    assert len(calls) == 8
    printed = capsys.readouterr().out
    assert "60 training images of the students, 1 epochs, batch 20" in printed
    last = printed.split("Which?")[-1].splitlines()
    assert "letters" in printed
    line = next(line for line in last if line.startswith("b"))
    assert line.split() == ["b", "6.00", "±", f"{statistics.stdev([4, 8]):.2f}", "-"]
    assert "published (A paper; another data set" in printed
    assert "70.00  71.50" in printed
    record = json.loads((tmp_path / "toy.json").read_text())
    assert record["cells"]["b | x"] == {"0": 4.0, "1": 8.0}
    assert (tmp_path / "toy.png").stat().st_size > 3_000
    assert not list(tmp_path.glob("*.new"))
    assert _run.run(studies, [*options, "--seeds", "1"], tiny()) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines() if line[:2] == "b "] == [
        ["b", "4.00", "-"]  # of one seed, though the file has two
    ]


def test_an_interrupted_run_keeps_its_cells(tmp_path):
    studies = {"toy": counted([])}
    options = ["toy", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path)]
    good = studies["toy"].cell

    def breaks(lab, row, column, seed):
        if row == "b":
            raise KeyboardInterrupt
        return good(lab, row, column, seed)

    broken = {"toy": Study("toy", "Which?", ["a", "b"], ["x", "y"], breaks)}
    with pytest.raises(KeyboardInterrupt):
        _run.run(broken, options, tiny())
    calls = []
    assert _run.run({"toy": counted(calls)}, options, tiny()) == 0
    assert calls == [("b", "x", 0), ("b", "y", 0)]


def test_a_file_of_another_run_is_refused(tmp_path, capsys):
    studies = {"toy": counted([])}
    options = ["toy", "--seeds", "1", "--out", str(tmp_path)]
    assert _run.run(studies, [*options, "--epochs", "1"], tiny()) == 0
    assert _run.run(studies, [*options, "--epochs", "2"], tiny()) == 2
    assert "of another run: there {'epochs': 1" in capsys.readouterr().err
    (tmp_path / "toy.json").write_text("[1]")
    assert _run.run(studies, [*options, "--epochs", "1"], tiny()) == 2
    assert "is no file of a study" in capsys.readouterr().err


def test_the_plot_has_the_means(monkeypatch, tmp_path):
    figures = []
    figure = pytest.importorskip("matplotlib.figure").Figure
    monkeypatch.setattr(figure, "savefig", lambda self, path: figures.append(self))
    cells = {"a | x": {"0": 1.0, "1": 3.0}, "a | y": {"0": 5.0}, "b | x": {"0": None}}
    record = {"settings": {}, "cells": cells}
    for lines in (True, False):
        study = Study("toy", "Which?", ["a", "b"], ["x", "y"], None, axis="letters", lines=lines)
        assert _report.plot(study, record, tmp_path / "p.png", study.rows, study.columns)
    line, bars = (f.axes[0] for f in figures)
    assert line.containers[0].lines[0].get_ydata().tolist() == [2.0, 5.0]
    assert [p.get_height() for p in bars.patches] == [2.0, 5.0]
    assert (bars.get_xlabel(), bars.get_ylabel()) == ("letters", "test accuracy, %")
    assert [t.get_text() for t in bars.get_xticklabels()] == ["x", "y"]


def test_without_a_name_it_lists(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"{s.name:<14}{s.question}" in printed for s in STUDIES.values())
    for bad in (["nothing"], ["rates", "--rows", "Magic"], ["rates", "--seeds", "0"]):
        with pytest.raises(SystemExit):
            main(bad)


def test_the_published_vectors():
    """As METHODS has them: k = 1, 2, 4, 8, 16."""
    text = _report.published(STUDIES["vectors"].published)
    assert "73.57  73.76  73.84  73.86  73.71" in text
    assert _report.published(None) == "published: no table at hand"
