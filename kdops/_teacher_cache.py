"""What a fixed teacher says of every sample of a dataset, kept in memory-mapped files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from kdops._batches import INDEX, inputs_of, logits_of, on_device, run
from kdops._fingerprint import fingerprint
from kdops._layers import unwrap
from kdops._layout import Grid, check_cut, laid_out
from kdops._mapped import Mapped
from kdops._progress import Progress
from kdops.features import FeatureTap

PROBES = 16  # samples read twice: a flip of every other image stays unseen once in 2^16
COMMIT = 100  # batches between two records of what is filled
Known = tuple[list[Tensor] | None, Tensor | None]


class Indexed(Dataset[Any]):
    """A dataset whose items say which they are: (image, target) becomes (image, target, index), a
    dict gets "sample_index"."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        if isinstance(item, dict):
            return {**item, INDEX: index}
        if isinstance(item, (tuple, list)) and len(item) > 1:
            return (*item, index)
        raise ValueError(
            f"Indexed: expected items (image, target, ...) or dicts, got {type(item).__name__}"
        )


class TeacherCache:
    """The features and logits of a fixed teacher by sample index, in memory-mapped files.

    >>> cache = TeacherCache("cache", teacher, ["layer1", "layer2"], dtype=torch.float16)
    >>> loader = DataLoader(Indexed(dataset), 64, shuffle=True)
    >>> cache.fill(loader)                       # one pass; goes on where one was interrupted
    >>> fit(student, cache, method, loader, epochs=100, layers=(names, ["layer1", "layer2"]))
    >>> cache.features(index), cache.logits(index)       # in a loop of your own

    path: a directory for this cache alone. layers, at, layout, prefix, grid: see FeatureTap; what
    is stored is what the layers gave, before layout, prefix and grid. logits: keep the teacher's
    logits too, where it has any. dtype: of what is stored (float16 and bfloat16 halve it), None for
    the features' own; a number too large for it is a ValueError. Every sample must have features of
    one shape: pad sequences to one length.

    A directory made of other weights, layers or dtype is a ValueError; so is a dataset whose inputs
    change from one reading to the next (random augmentation: the student would see images that the
    teacher has not seen) or are not those of the cache, of which 16 samples are read.
    allow_random=True takes whatever view was drawn while filling and checks no samples.
    """

    def __init__(
        self,
        path: str | Path,
        teacher: nn.Module,
        layers: str | Sequence[str] = (),
        *,
        at: str | Sequence[str] = "output",
        layout: str | None = None,
        prefix: int = 0,
        grid: Grid = None,
        logits: bool = True,
        dtype: torch.dtype | None = None,
        allow_random: bool = False,
    ) -> None:
        self.layers = [layers] if isinstance(layers, str) else list(layers)
        check_cut("TeacherCache", layout, prefix, grid)
        if not self.layers and not logits:
            raise ValueError("TeacherCache: neither layers nor logits: there is nothing to keep")
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"TeacherCache: dtype is a floating point type or None, got {dtype}")
        self.at = at if isinstance(at, str) else list(at)
        self.teacher, self.allow_random = teacher, allow_random
        self.layout, self.prefix, self.grid = layout, prefix, grid
        self.dtype, self.keeps_logits = dtype, logits
        if self.layers:
            FeatureTap(teacher, self.layers, at=at).close()  # for its messages
        self._files = Mapped(Path(path), self._identity())

    def _identity(self) -> dict[str, Any]:
        asked = {"layers": self.layers, "at": self.at, "logits": self.keeps_logits}
        weights = fingerprint(unwrap(self.teacher).state_dict())
        kept = str(self.dtype).removeprefix("torch.") if self.dtype else "its own"
        return {"teacher": weights, **asked, "dtype": kept}

    def fill(self, loader: Any, *, progress: bool = True) -> TeacherCache:
        """Run the teacher over the samples that are not in the cache yet.

        loader: a DataLoader, of which the dataset, the size of a batch, the workers and collate_fn
        are used, in the dataset's order and with no sample dropped. Under torch.distributed let one
        process fill the cache, then the others open it.
        """
        dataset, size = _sized(loader)
        # the teacher as it is now: it may have learned since the cache was opened
        origin = {"teacher": self._identity()["teacher"], "samples": len(dataset)}
        origin["inputs"] = self._inputs(loader)
        self._files.check(origin)
        rest = self._files.missing(len(dataset))
        if not len(rest):
            return self
        batches: DataLoader[Any] = DataLoader(
            Subset(dataset, rest.tolist()), size, num_workers=loader.num_workers,
            collate_fn=loader.collate_fn, worker_init_fn=loader.worker_init_fn,
            generator=torch.Generator(),  # the seed of the run stays as it is
        )  # fmt: skip
        teacher, training = self.teacher, self.teacher.training
        teacher.eval()
        try:
            with Progress("TeacherCache", batches, 1, None, progress) as bar:
                self._fill(zip(rest.split(size), batches, strict=True), origin, bar)
        finally:
            teacher.train(training)
        return self

    def _fill(self, batches: Any, origin: dict[str, Any], bar: Progress) -> None:
        device = next((p.device for p in self.teacher.parameters()), torch.device("cpu"))
        tap = FeatureTap(self.teacher, self.layers, at=self.at) if self.layers else None
        pending: list[Tensor] = []
        try:
            for index, batch in batches:
                with torch.no_grad():
                    output = run(self.teacher, on_device(batch, device))
                names, parts = list(self.layers), tap.features if tap else []
                logits = logits_of(output) if self.keeps_logits else None
                if logits is not None:
                    names, parts = [*names, "logits"], [*parts, logits]
                self._files.write(index, names, parts, self.dtype, origin)
                pending.append(index)
                if len(pending) == COMMIT:
                    self._files.commit(pending)
                bar.step()
        finally:
            self._files.commit(pending)
            if tap is not None:
                tap.close()

    def features(self, index: Any) -> list[Tensor]:
        """One tensor per layer, of these samples in this order, on the index's device, in the
        cache's dtype."""
        found = [self._files.read(i, index) for i in range(len(self.layers))]
        cut = self.layout, self.prefix, self.grid
        pairs = zip(self.layers, found, strict=True)
        return [laid_out(f"TeacherCache: at {name!r}", x, *cut) for name, x in pairs]

    def logits(self, index: Any) -> Tensor | None:
        """The logits of these samples, None where none were kept."""
        place = len(self.layers)
        return self._files.read(place, index) if self._files.has(place) else None

    def check(self, loader: Any) -> None:
        """A ValueError where the cache does not belong to what a loader gives; fit asks it."""
        dataset, _ = _sized(loader)
        if not isinstance(dataset, Indexed):
            raise ValueError(
                "TeacherCache: the loader's batches do not say which samples they are: give it "
                "Indexed(dataset), DataLoader(Indexed(dataset), ...)"
            )
        now = {"teacher": self._identity()["teacher"], "samples": len(dataset)}
        self._files.check({**now, "inputs": self._inputs(loader)})
        if left := len(self._files.missing(len(dataset))):
            raise ValueError(
                f"TeacherCache: {left} of {len(dataset)} samples are not filled: call fill(loader)"
            )

    def reader(self, layers: Any, at: Any) -> Callable[[Any], Known]:
        """For fit: batch -> (features, logits) of its samples. at: None where a tap says it."""
        names = [layers] if isinstance(layers, str) else layers
        if names is not None and (isinstance(names, FeatureTap) or list(names) != self.layers):
            asked = "an open tap of the teacher" if isinstance(names, FeatureTap) else repr(names)
            raise ValueError(
                f"TeacherCache: the cache holds the layers {self.layers}, fit asks for {asked}"
            )
        at = at if at is None or isinstance(at, str) else list(at)
        if names is not None and at is not None and at != self.at:
            raise ValueError(
                f"TeacherCache: the cache was read at={self.at!r}, fit asks for at={at!r}"
            )

        def known(batch: Any) -> Known:
            index = index_of(batch)
            return None if layers is None else self.features(index), self.logits(index)

        return known

    def _inputs(self, loader: Any) -> str:
        """The fingerprint of some inputs; a ValueError if a second reading gives others."""
        if self.allow_random:
            return "random"
        dataset, _ = _sized(loader)
        step = max(len(dataset) // PROBES, 1)
        probes = range(0, len(dataset), step)[:PROBES]
        first, second = (
            fingerprint(inputs_of(loader.collate_fn([dataset[i] for i in probes])))
            for _ in range(2)
        )
        if first != second:
            raise ValueError(
                "TeacherCache: the dataset's inputs change from one reading to the next (random "
                "augmentation): the student would see images that the teacher has not seen. Train "
                "without it, or pass allow_random=True to keep the view drawn while filling"
            )
        return first


def index_of(batch: Any, owner: str = "TeacherCache") -> Tensor:
    """Which samples a batch of an Indexed dataset holds; owner: who asks."""
    found: Any = batch.get(INDEX) if isinstance(batch, dict) else batch[-1]
    whole = isinstance(found, Tensor) and found.ndim == 1 and not found.is_floating_point()
    if not whole or (not isinstance(batch, dict) and len(batch) < 3):
        raise ValueError(
            f"{owner}: the batch does not say which samples it holds: give the loader "
            "kdops.training.Indexed(dataset), and collate_fn must keep what Indexed adds, the last "
            f"part of a tuple or {INDEX!r} of a dict"
        )
    return torch.as_tensor(found)


def _sized(loader: Any) -> tuple[Any, int]:
    """The dataset of a loader, and how many samples a batch has."""
    dataset = getattr(loader, "dataset", None)
    batches = getattr(loader, "batch_sampler", None)
    streamed = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__")
    if streamed or batches is None or not len(dataset):  # type: ignore[arg-type]
        raise ValueError(
            "TeacherCache: expected a DataLoader that makes batches of a dataset with samples and "
            f"indices, got {type(loader).__name__} of {type(dataset).__name__}"
        )
    return dataset, getattr(batches, "batch_size", 1)
