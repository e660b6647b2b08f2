"""The demo: its data readers, every recipe, and a whole run in miniature."""

import json
import pickle

import numpy as np
import pytest
import torch

from kdops import distillers
from kdops.demo import main, report
from kdops.demo.data import Batches, DataError, Images, cifar, digits
from kdops.demo.methods import RECIPES
from kdops.demo.nets import STAGES
from kdops.demo.run import BASELINE, Demo, parse

pytest.importorskip("sklearn")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_cifar(root, name, rows=12):
    rng = np.random.default_rng(0)
    if name == "cifar10":
        folder, label = root / "cifar-10-batches-py", b"labels"
        files, classes = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], 10
    else:
        folder, label, classes = root / "cifar-100-python", b"fine_labels", 100
        files = ["train", "test"]
    folder.mkdir()
    for file in files:
        record = {
            b"data": rng.integers(0, 256, (rows, 3072), dtype=np.uint8),
            label: [int(v) for v in rng.integers(0, classes, rows)],
        }
        (folder / file).write_bytes(pickle.dumps(record, protocol=2))
    return folder


@pytest.mark.parametrize(("name", "train"), [("cifar10", 60), ("cifar100", 12)])
def test_cifar(tmp_path, name, train):
    folder = write_cifar(tmp_path, name)
    images = cifar(name, tmp_path)
    assert images.train[0].shape == (train, 3, 32, 32)
    assert images.test[0].shape == (12, 3, 32, 32)
    assert images.classes == int(name.removeprefix("cifar"))
    torch.testing.assert_close(images.train[0].mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(cifar(name, folder).train[0], images.train[0])
    first = pickle.loads(
        (folder / ("train" if name == "cifar100" else "data_batch_1")).read_bytes()
    )
    pixel = images.train[0][0, 2, 3, 4] - images.train[0][0, 2, 3, 5]
    raw = first[b"data"][0].reshape(3, 32, 32)[2, 3].astype(float)
    assert np.sign(float(pixel)) == np.sign(raw[4] - raw[5])


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


DAMAGE = {
    "missing": (None, "is missing; unpack"),
    "truncated": (b"\x80\x02}q", "not a readable pickle"),
    "another set": (pickle.dumps({b"data": 1}), "lacks the keys"),
    "wrong shape": (
        pickle.dumps({b"data": np.zeros((4, 5), np.uint8), b"labels": [0] * 4}),
        r"expected uint8 data \(N, 3072\)",
    ),
    "wrong labels": (
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}),
        "labels below 10",
    ),
    "code": (pickle.dumps(Evil()), "not a readable pickle .*print"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_cifar(tmp_path, kind, capsys):
    content, message = DAMAGE[kind]
    file = write_cifar(tmp_path, "cifar10") / "data_batch_3"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        cifar("cifar10", tmp_path)
    assert main(["--data", "cifar10", "--root", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "kdops demo:" in captured.err
    assert "code ran" not in captured.out


def test_root_is_asked_for(capsys):
    assert main(["--data", "cifar100"]) == 2
    assert "needs --root DIR" in capsys.readouterr().err


def test_batches_are_crops_and_repeatable():
    x = torch.arange(6 * 16.0).view(6, 1, 4, 4) + 1
    images = Images("toy", (x, torch.arange(6)), (x, torch.arange(6)), 6, 1, False)
    a, b = (list(Batches(images, 3, seed=4)) for _ in range(2))
    assert len(a) == 2
    for (xa, ya), (xb, yb) in zip(a, b, strict=True):
        assert torch.equal(xa, xb)
        assert torch.equal(ya, yb)
        for crop, label in zip(xa, ya, strict=True):
            padded = torch.nn.functional.pad(x[label, 0], (1, 1, 1, 1))
            places = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
            assert any(torch.equal(crop[0], place) for place in places)
    with pytest.raises(DataError, match="larger than the training set"):
        Batches(images, 7, seed=0)
    flipped = Images("toy", images.train, images.test, 6, 0, True)
    (crop, label), *_ = Batches(flipped, 6, seed=0)
    same = [torch.equal(c, x[i]) for c, i in zip(crop, label, strict=True)]
    mirrored = [torch.equal(c, x[i].flip(2)) for c, i in zip(crop, label, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)


def test_digits():
    images = digits()
    assert len(images.train[1]) == 500
    assert len(images.for_teacher().train[1]) == 1100
    assert len(images.test[1]) == 697
    assert torch.equal(images.for_teacher().train[0][:500], images.train[0])


def test_a_recipe_for_every_method():
    assert set(RECIPES) == set(distillers.__all__)


def test_arguments():
    assert parse(["--methods", "rkd,SoftTarget,rkd"]).methods == ["RKD", "SoftTarget"]
    assert parse(["--methods", "all"]).methods == list(RECIPES)
    assert parse(["--data", "cifar10"]).batch == 128
    for bad in (["--methods", "Magic"], ["--seeds", "0"]):
        with pytest.raises(SystemExit):
            parse(bad)


@pytest.fixture(scope="module")
def small():
    """A few digits and a teacher that has seen them."""
    images = digits(120, 200)
    images.test = tuple(x[:50] for x in images.test)
    args = parse(["--epochs", "3", "--batch", "20", "--seeds", "1", "--rounds", "1"])
    demo = Demo(args, images)
    demo.bar = None
    demo.train("teacher", 100, demo.teacher)
    demo.train(BASELINE, 0)
    return demo


@pytest.mark.parametrize("name", RECIPES)
def test_every_method_trains_a_student(small, name):
    """The sum that is minimised falls, and so does the distiller's own loss for most."""
    rows = small.train(name, 0)
    weight = RECIPES[name].weight
    first, last = (r["loss"] + weight * r["distill"] for r in (rows[0], rows[-1]))
    assert last < first
    assert all(np.isfinite(list(r.values())).all() for r in rows)


@pytest.mark.parametrize("name", ["MHGD", "IEP"])
def test_preparation_learns_on_digits(small, name):
    """What learns from the teacher alone: its loss falls on the demo's images."""
    setting = small.setting(0)
    student = setting.make_student()
    method = getattr(distillers, name).from_sample(*setting.features(student, STAGES, "output"))
    history = method.prepare(setting.stream(STAGES, "output"), epochs=6)
    assert history[-1] < 0.9 * history[0]


def test_timing_compares_backends(small):
    times = small.times([BASELINE, "RKD", "FitNet"])
    assert set(times["RKD"]) == {"kdops", "plain"}
    assert set(times["FitNet"]) == set(times[BASELINE]) == {"kdops"}
    assert all(len(v) == 1 and v[0] > 0 for t in times.values() for v in t.values())


def test_a_run_writes_its_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kdops.demo.run.digits", lambda: digits(60, 100))
    options = ["--epochs", "1", "--seeds", "2", "--rounds", "1", "--batch", "20"]
    assert main(["--methods", "SoftTarget,RKD", "--out", str(tmp_path), *options]) == 0
    record = json.loads((tmp_path / "demo.json").read_text())
    assert list(record["methods"]) == [BASELINE, "SoftTarget", "RKD"]
    rkd = record["methods"]["RKD"]
    assert len(rkd["final"]) == 2
    assert rkd["plain_ms"] > 0
    assert rkd["accuracy"] == pytest.approx(sum(rkd["final"]) / 2)
    soft = record["methods"]["SoftTarget"]["ms"]
    assert rkd["over_soft_target_ms"] == pytest.approx(rkd["ms"] - soft)
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert f"{rkd['accuracy']:.2f} ± {rkd['spread']:.2f}" in printed
    assert "demo.json" in printed
    assert report.table(record) in printed
