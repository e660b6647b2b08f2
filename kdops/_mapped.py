"""The files of a TeacherCache: one of rows per tensor, which rows are there, and a header."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WHAT = {
    "teacher": "a teacher of other weights", "layers": "other layers", "at": "another `at`",
    "logits": "another `logits`", "dtype": "another dtype", "samples": "a dataset of other length",
    "inputs": "other inputs (another dataset, order or transform)",
}  # fmt: skip


class Mapped:
    """Rows by sample index. The header is written last: without one there is no cache yet."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path, self.identity = path, identity
        self.header: dict[str, Any] = {}
        self.rows: list[Tensor] = []
        self.done = torch.empty(0, dtype=torch.uint8)
        if (path / "header.json").exists():
            self.header = self._load()
            self.check(identity)
            self._map()

    def _load(self) -> dict[str, Any]:
        file = self.path / "header.json"
        try:
            header = json.loads(file.read_text())
        except ValueError as error:
            raise ValueError(f"TeacherCache: {file} is no header of a cache: {error}") from error
        if not isinstance(header, dict) or not {*WHAT, "entries"} <= set(header):
            raise ValueError(f"TeacherCache: {file} is no header of a cache")
        return header

    def check(self, expected: dict[str, Any]) -> None:
        """A ValueError where the cache, if there is one, was made of something else."""
        for name, value in expected.items():
            if self.header and self.header[name] != value:
                raise ValueError(
                    f"TeacherCache: {self.path} was made of {WHAT[name]}: it has "
                    f"{self.header[name]!r}, this is {value!r}; move it away or take another path"
                )

    def missing(self, samples: int) -> Tensor:
        """The indices that have no rows yet."""
        return (self.done == 0).nonzero().flatten() if self.header else torch.arange(samples)

    def has(self, place: int) -> bool:
        return place < len(self.rows)

    def write(
        self, index: Tensor, names: Sequence[str], parts: Sequence[Tensor],
        dtype: torch.dtype | None, origin: dict[str, Any],
    ) -> None:  # fmt: skip
        """The parts' rows of these samples; the first call makes the files."""
        stored = [_as(dtype, name, x) for name, x in zip(names, parts, strict=True)]
        if not self.header:
            self._create(names, stored, origin)
        for name, x, rows in zip(names, stored, self.rows, strict=True):
            if x.shape != (len(index), *rows.shape[1:]) or x.dtype != rows.dtype:
                raise ValueError(
                    f"TeacherCache: {name!r} is {list(x.shape)} {x.dtype} for {len(index)} "
                    f"samples of shape {list(rows.shape[1:])} {rows.dtype} in the cache: every "
                    "sample must have one shape (pad sequences to one length)"
                )
            rows[index] = x.cpu()

    def commit(self, pending: list[Tensor]) -> None:
        """Record rows as filled, once they are on the disk: a power cut must not leave a hole."""
        if not pending:
            return
        for i in range(len(self.rows)):
            _sync(self._file(i))
        self.done[torch.cat(pending)] = 1
        _sync(self._file("done"))
        pending.clear()

    def read(self, place: int, index: Any) -> Tensor:
        """The rows of one tensor, a copy on the device of the index."""
        index = torch.as_tensor(index).reshape(-1)
        device, index = index.device, index.cpu()
        if not self.header:
            raise ValueError(f"TeacherCache: {self.path} is empty: call fill(loader)")
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < len(self.done):
            raise IndexError(
                f"TeacherCache: indices from {int(index.min())} to {int(index.max())} of "
                f"{len(self.done)} samples"
            )
        if not self.done[index].all():
            first = int(index[self.done[index] == 0][0])
            raise ValueError(f"TeacherCache: sample {first} is not filled: call fill(loader)")
        return self.rows[place][index].to(device, non_blocking=True)

    def _file(self, name: int | str) -> Path:
        return self.path / f"{name}.bin"

    def _create(
        self, names: Sequence[str], parts: Sequence[Tensor], origin: dict[str, Any]
    ) -> None:
        entries = [
            [n, list(x.shape[1:]), _name(x.dtype)] for n, x in zip(names, parts, strict=True)
        ]
        header = {**self.identity, **origin, "entries": entries}
        self.path.mkdir(parents=True, exist_ok=True)
        for name, size in _sizes(header).items():
            with open(self._file(name), "wb") as file:  # reserved: a full disk is an OSError now
                if size and hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(size)
        aside = self.path / f"header.{os.getpid()}.tmp"
        aside.write_text(json.dumps(header, indent=1))
        _sync(aside)
        os.replace(aside, self.path / "header.json")
        self.header = header
        self._map()

    def _map(self) -> None:
        for name, size in _sizes(self.header).items():
            file = self._file(name)
            found = file.stat().st_size if file.exists() else 0
            if found != size:
                raise ValueError(f"TeacherCache: {file} has {found} bytes, expected {size}")
        samples = self.header["samples"]
        self.done = self._tensor("done", (samples,), torch.uint8)
        kinds = [(shape, getattr(torch, dtype)) for _, shape, dtype in self.header["entries"]]
        self.rows = [self._tensor(i, (samples, *s), dtype) for i, (s, dtype) in enumerate(kinds)]

    def _tensor(self, name: int | str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        file, size = self._file(name), math.prod(shape)
        shared = os.access(file, os.W_OK)  # a cache that may not be written is read all the same
        return torch.from_file(str(file), shared, size, dtype=dtype).view(shape)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _sizes(header: dict[str, Any]) -> dict[int | str, int]:
    """The bytes of every file."""
    sizes: dict[int | str, int] = {"done": header["samples"]}
    for i, (_, shape, dtype) in enumerate(header["entries"]):
        sizes[i] = header["samples"] * math.prod(shape) * getattr(torch, dtype).itemsize
    return sizes


def _as(dtype: torch.dtype | None, name: str, x: Tensor) -> Tensor:
    """x in the dtype of the cache; a ValueError where that cannot hold it."""
    if dtype is None or not x.is_floating_point():
        return x
    stored = x.to(dtype)
    if not torch.equal(stored.isfinite(), x.isfinite()):
        raise ValueError(
            f"TeacherCache: {name!r} has values up to {float(x[x.isfinite()].abs().max()):.3g}, "
            f"which {dtype} cannot hold: store torch.bfloat16 or torch.float32"
        )
    return stored


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
