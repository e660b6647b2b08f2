"""Methods with a preparatory phase, in which they learn something about the teacher alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from kdops._progress import Progress
from kdops.distillers._base import Distiller, Levels, check_feature, constant_map, levels_of


class PreparedDistiller(Distiller):
    """A method that first learns something about the teacher alone.

    ``prepare(batches)`` runs that phase; the flag travels with state_dict. Calling the method
    before raises a RuntimeError that names the remedy.
    """

    prepared: Tensor

    def __init__(
        self, *, weights: Sequence[float] | None = None, layout: str | None = None
    ) -> None:
        super().__init__(weights=weights, layout=layout)
        self.register_buffer("prepared", torch.zeros((), dtype=torch.bool))
        self._ready: bool | None = None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._ready = None

    def is_prepared(self) -> bool:
        """Whether prepare() has been run, here or before the state_dict was saved."""
        if self._ready is None:  # read the buffer once: on a GPU every read is a synchronisation
            self._ready = bool(self.prepared)
        return self._ready

    def require_prepared(self) -> None:
        if not self.is_prepared():
            raise RuntimeError(
                f"{self.name}: the preparatory phase was not run; call "
                f"{self.name}.prepare(teacher_batches) first, or load the state_dict of a "
                "prepared method"
            )

    def mark_prepared(self) -> None:
        """Declare the preparatory phase done (prepare() does; so may a user with own weights)."""
        self.prepared.fill_(True)
        self._ready = True

    def teacher_levels(self, batch: Levels) -> list[Tensor]:
        """One batch for prepare(), checked: the teacher's features as the method was built for."""
        levels = levels_of(f"{self.name}.prepare", batch)
        for i, x in enumerate(levels):
            check_feature(f"{self.name}.prepare", i, "teacher", x)
        where = f"{self.name}.prepare: level"
        maps = [constant_map(f"{where} {i}", x, self.layout) for i, x in enumerate(levels)]
        found = [x.shape[1] for x in maps]
        built = [t for _, t in self.channels or ()]
        if found != built:
            raise ValueError(
                f"{self.name}.prepare: built for levels of {built} teacher channels, got {found}; "
                "pass batches of the teacher's features, one tensor per level"
            )
        return maps

    def learn(
        self,
        batches: Iterable[Any],
        loss_of: Callable[[Any, int], Tensor],
        parameters: Iterable[nn.Parameter],
        *,
        epochs: int,
        lr: float,
        steps: int | None = None,
        progress: bool = True,
    ) -> list[float]:
        """Minimise loss_of(batch, epoch) with Adam; the mean loss of every epoch.

        steps: the most there are in all, which may end the last epoch early; None for no limit.
        """
        trained, history, left = list(parameters), list[float](), steps
        fused = {p.device.type for p in trained} <= {"cpu", "cuda"}  # one pass over the moments
        optimizer = torch.optim.Adam(trained, lr=lr, fused=fused)
        with Progress(f"{self.name}.prepare", batches, epochs, steps, progress) as bar:
            for epoch in range(epochs):
                losses = []
                for batch in islice(batches, left):
                    with torch.enable_grad():
                        loss = loss_of(batch, epoch)
                        optimizer.zero_grad(set_to_none=True)
                        torch.autograd.backward(loss)
                    optimizer.step()
                    losses.append(loss.detach())
                    bar.step()
                if not losses:
                    raise ValueError(
                        f"{self.name}.prepare: no batches in epoch {epoch}; pass a list, or "
                        "another iterable that can be walked once per epoch"
                    )
                history.append(float(torch.stack(losses).mean()))
                left = None if left is None else left - len(losses)
                if left == 0:
                    break
        return history
