"""The cases whose cost on a GPU is predicted, and measured on the day there is one.

Float32, batch 128 unless the name says otherwise. `bar` and `target` are microseconds on an H200
that the kernels are to reach. One matrix of a batch costs what another does, so a prediction may
run some blocks of a kernel and count the others as the same (`sampled`), where blocks of the next
kernel read what the same blocks of the last one wrote; a loss over all rows runs whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import kdops

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    name: str
    shapes: tuple[tuple[int, ...], ...]
    students: int  # so many of the inputs, the first ones, want a gradient; 0 for a forward pass
    call: Callable[..., Any]
    bar: float | None = None
    target: float | None = None
    sampled: bool = False
    times: int = 1  # a prediction runs so many times fewer matrices, and counts each so often
    slow: bool = False  # left out by --quick
    make: Callable[[torch.Generator, tuple[int, ...]], Tensor] | None = None

    def inputs(self, seed: int, device: str, times: int = 1) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        make = self.make or _normal
        shapes = [(shape[0] // times, *shape[1:]) for shape in self.shapes]
        tensors = [make(generator, shape).to(device) for shape in shapes]
        return tuple(t.requires_grad_(i < self.students) for i, t in enumerate(tensors))

    def run(self, *inputs: Tensor) -> Any:
        """Forward, and with it the gradient where one is wanted."""
        with kdops.backend("native"):
            if not self.students:
                with torch.no_grad():
                    return self.call(*inputs)
            return torch.autograd.grad(self.call(*inputs), inputs[: self.students])


def _normal(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=generator)


def _features(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Maps with a decaying spectrum, as networks have."""
    batch, m, n = shape
    short = min(m, n)
    left = torch.randn(batch, m, short, generator=generator)
    right = torch.randn(batch, short, n, generator=generator)
    return (left * 0.85 ** torch.arange(short)) @ right / short**0.5


def _vectors(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Orthonormal ones, as singular vectors are: the entries are small."""
    return torch.linalg.qr(_normal(generator, shape))[0].contiguous()


def _top(k: int, A: Tensor) -> tuple[Tensor, Tensor]:
    result = kdops.batched_svd(A, k, compute_u=False)
    return result.S, result.Vh


def _top_sum(k: int, A: Tensor) -> Tensor:
    S, Vh = _top(k, A)
    return S.sum() + Vh.sum()


def _fsp(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return kdops.fsp_loss((a, b), (c, d))


def _svd(m: int, n: int, bar: float | None, target: float | None, batch: int = 128) -> Case:
    size = f"{m}x{n}" + (f" B={batch}" if batch != 128 else "")
    rest = {"sampled": True, "slow": m * n * n > 1 << 19}
    return Case(f"svd {size}", ((batch, m, n),), 0, kdops.batched_svd, bar, target, **rest)


def _topk(m: int, n: int, bars: tuple[Any, ...], batch: int = 128) -> list[Case]:
    """Forward, and forward with backward; bars: (bar, target) of each. Above 128 several kernels
    share a matrix by blocks of their own: all blocks of one matrix are run."""
    size = f"top-4 {m}x{n}" + (f" B={batch}" if batch != 128 else "")
    shapes, pairs = ((batch, m, n),), bars or ((None, None), (None, None))
    whole = min(m, n) > 128
    rest = {"sampled": not whole, "times": batch if whole else 1, "slow": whole, "make": _features}
    return [
        Case(f"{size} forward", shapes, 0, partial(_top, 4), *pairs[0], **rest),
        Case(f"{size} with backward", shapes, 1, partial(_top_sum, 4), *pairs[1], **rest),
    ]


def _maps(*channels: int, side: int) -> tuple[tuple[int, ...], ...]:
    return tuple((128, c, side, side) for c in channels)


CASES = [
    _svd(8, 8, 12, 6),
    _svd(16, 16, 22, 15),
    _svd(32, 32, 55, 35),
    _svd(64, 64, 200, 110),
    *_topk(256, 32, ()),
    Case("rkd_angle N=256 D=512", ((256, 512),) * 2, 1, kdops.rkd_angle_loss, 50, 25),
    Case("rkd_distance N=256 D=512", ((256, 512),) * 2, 1, kdops.rkd_distance_loss),
    Case("gram 16 channels x 1024", _maps(16, side=32), 0, kdops.gram, sampled=True),
    Case("fsp_loss 16, 16 x 1024", _maps(16, 16, 16, 16, side=32), 2, _fsp, None, 8, True),
    Case("svd_rbf_loss 256, 256, 4", ((128, 256, 4),) * 4, 2, kdops.svd_rbf_loss, 50, 25, True),
    Case(
        "svd_rbf_loss 256, 256, 4 vectors",
        ((128, 256, 4),) * 4,
        2,
        kdops.svd_rbf_loss,
        50,
        25,
        sampled=True,
        make=_vectors,
    ),
    _svd(1024, 16, 70, 35),
    *_topk(49, 512, ((90, 45), (150, 80))),
    _svd(128, 128, 1200, 600),
    _svd(1024, 32, 250, 100, batch=512),
    *_topk(784, 512, ((1000, 400), (2000, 800)), batch=64),
]
