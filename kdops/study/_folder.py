"""Images of a folder as torchvision's ImageFolder reads them: FOLDER/train/CLASS/*.png."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdops.demo.data import DataError, Images

HELD_OUT = ("test", "val", "valid", "validation")
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".webp"}
LARGEST = 64  # pixels a side where no size is given: all images are kept in memory


def folder_images(path: str | Path, size: int | None = None) -> Images:
    """The sets FOLDER/train and FOLDER/test (or val), a folder of images per class in each.

    size: of the square that every image is resized to; None: the first image's shorter side, at
    most 64. Grey images become RGB. Normalised by mean and deviation of the training set.
    """
    root = Path(path)
    held = next((root / name for name in HELD_OUT if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or held is None:
        raise DataError(
            f"{root} has no folders train and test (or val) with a folder of images per class; "
            "torchvision's ImageFolder expects the same"
        )
    classes = _classes(root / "train")
    if classes != _classes(held):
        different = sorted(set(classes) ^ set(_classes(held)))
        raise DataError(f"{root}/train and {held} have other classes: {different[:5]} in one only")
    size = size or _first_size(root / "train" / classes[0])
    (x, y), (x_test, y_test) = (_read(split, classes, size) for split in (root / "train", held))
    mean = x.mean((0, 2, 3), keepdim=True)
    std = x.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    pad = max(size // 8, 1)
    test = ((x_test - mean) / std, y_test)
    return Images(root.name, ((x - mean) / std, y), test, len(classes), pad, True)


def _classes(split: Path) -> list[str]:
    found = sorted(entry.name for entry in split.iterdir() if entry.is_dir())
    if not found:
        raise DataError(f"{split} has no folders of classes")
    return found


def _files(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS)
    if not found:
        raise DataError(f"{folder} has no images ({', '.join(sorted(ENDINGS))})")
    return found


def _first_size(folder: Path) -> int:
    _, height, width = _open(_files(folder)[0], None).shape
    return min(height, width, LARGEST)


def _read(split: Path, classes: list[str], size: int) -> tuple[Tensor, Tensor]:
    images, labels = [], []
    for label, name in enumerate(classes):
        for file in _files(split / name):
            images.append(_open(file, size))
            labels.append(label)
    return torch.stack(images).float() / 255, torch.tensor(labels)


def _open(file: Path, size: int | None) -> Tensor:
    """RGB (3, H, W) of 8 bits: the central square, resized."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DataError("reading a folder of images needs Pillow: pip install pillow") from error
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except OSError as error:
        raise DataError(f"{file} is no readable image ({error})") from error
    if size is not None:
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
