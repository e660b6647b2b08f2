"""Folders of images as torchvision's ImageFolder has them."""

import json

import numpy as np
import pytest
import torch

from kdops.demo.data import DataError
from kdops.study import folder_images, main

Image = pytest.importorskip("PIL.Image")


def make(root, *, held="val", classes=("cat", "dog"), each=3, size=(8, 8)):
    """Images whose red says the class, in two sets."""
    for split, shade in (("train", 200), (held, 100)):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(each):
                pixels = np.full((*size, 3), i, np.uint8)
                pixels[..., 0] = shade if label else 0
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.mark.parametrize("held", ["val", "test"])
def test_labels_and_pixels(tmp_path, held):
    images = folder_images(make(tmp_path, held=held))
    x, y = images.train
    assert (images.classes, list(x.shape)) == (2, [6, 3, 8, 8])
    assert y.tolist() == [0, 0, 0, 1, 1, 1]  # classes in the order of their names
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    red_of_train = x[y == 1, 0].unique(), x[y == 0, 0].unique()
    assert len(red_of_train[0]) == len(red_of_train[1]) == 1
    middle = (red_of_train[0] + red_of_train[1]) / 2  # 100 of 0 and 200, by the training set's mean
    x_test, y_test = images.test
    torch.testing.assert_close(x_test[y_test == 1, 0], middle.expand(3, 8, 8))


def test_sizes(tmp_path):
    make(tmp_path, size=(12, 20))
    assert folder_images(tmp_path).train[0].shape[2:] == (12, 12)
    assert folder_images(tmp_path, 6).test[0].shape[2:] == (6, 6)


def test_grey_images_become_rgb(tmp_path):
    make(tmp_path)
    grey = Image.fromarray(np.full((8, 8), 7, np.uint8))
    grey.save(tmp_path / "train" / "cat" / "grey.png")
    x = folder_images(tmp_path).train[0]
    assert x.shape == (7, 3, 8, 8)


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(DataError, match="has no folders train and test"):
        folder_images(tmp_path)
    make(tmp_path)
    (tmp_path / "val" / "bird").mkdir()
    with pytest.raises(DataError, match=r"other classes: \['bird'\]"):
        folder_images(tmp_path)
    (tmp_path / "train" / "bird").mkdir()
    with pytest.raises(DataError, match="bird has no images"):
        folder_images(tmp_path)
    for split in ("train", "val"):
        (tmp_path / split / "bird").rmdir()
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0\.png is no readable image"):
        folder_images(tmp_path)


def test_a_study_on_a_folder(tmp_path, capsys):
    make(tmp_path / "images", each=4)
    options = ["--epochs", "1", "--batch", "4", "--seeds", "1", "--out", str(tmp_path / "out")]
    chosen = ["--rows", "alone,SoftTarget", "--columns", "0.5"]
    assert main(["rates", "--data", str(tmp_path / "images"), *options, *chosen]) == 0
    record = json.loads((tmp_path / "out" / "rates.json").read_text())
    assert record["settings"]["shape"] == [3, 8, 8]
    assert set(record["cells"]) == {"alone | 0.5", "SoftTarget | 0.5"}
    assert main(["rates", "--data", str(tmp_path)]) == 2
    assert "kdops study:" in capsys.readouterr().err
