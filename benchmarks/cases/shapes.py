"""Shapes of real teacher/student pairs, so that no case is chosen because it looks good.

A level is what a distiller taps: (C, H, W) of the maps that stages hand to each other. The batch
is the published 128 unless a case says otherwise. Used by bench_*.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

BATCH = 128
DTYPES = (torch.float32, torch.float64)
# what a half type can keep: its gradients are rounded to 8 bits
BFLOAT16_TOLERANCE = 1e-2

# three sensed levels (C, H, W) of student and teacher
PAIRS = {
    "ResNet32-ResNet8": [(32, 32, 32), (64, 16, 16), (128, 8, 8)],
    "WRN40-4 - WRN16-4": [(64, 32, 32), (128, 16, 16), (256, 8, 8)],
}

# full decompositions, (m, n): squares, then maps with positions as rows
SQUARE = [(n, n) for n in (8, 16, 32, 64, 128)]
TALL = [(64, 16), (256, 32), (1024, 16)]
# the k largest triples with gradient: CIFAR-size levels, an ImageNet-size last level
TOP = [(1024, 16), (256, 32), (64, 64), (64, 256), (49, 512)]
# maps beyond min(L, C) = 128, L x C, beside the last size below; those that the bars are about
LARGE = [(128, 128), (129, 129), (196, 256), (196, 384), (196, 1024), (784, 512), (3136, 256)]
BARS = [(196, 384), (196, 1024), (784, 512), (3136, 256)]
# FSP (positions; C1, C2), NST and attention (C, H, W)
FSP = [((32, 32), 16, 16), ((8, 8), 256, 256), ((7, 7), 512, 512)]
MAPS = [(64, 8, 8), (256, 8, 8), (512, 7, 7)]
# embeddings: rows, width

Make = Callable[[torch.Generator, torch.dtype, str], tuple[torch.Tensor, ...]]


def normal(*shapes: tuple[int, ...], grad: int = 1) -> Make:
    """Standard normal arguments; the first `grad` of them require a gradient."""

    def make(generator: torch.Generator, dtype: torch.dtype, device: str):
        values = [torch.randn(s, generator=generator).to(device, dtype) for s in shapes]
        return tuple(v.requires_grad_(i < grad) for i, v in enumerate(values))

    return make


def matrices(m: int, n: int, batch: int = BATCH) -> Make:
    """Random matrices (batch, m, n): the spectrum is dense, the values all differ."""
    return normal((batch, m, n))


def separated(m: int, n: int, k: int, batch: int = BATCH) -> Make:
    """A feature map's spectrum: k + 4 directions that stand out of the noise."""

    def make(generator: torch.Generator, dtype: torch.dtype, device: str):
        count = min(k + 4, m, n)
        noise = torch.randn(batch, m, n, generator=generator, dtype=torch.float64)
        left = torch.randn(batch, m, count, generator=generator, dtype=torch.float64)
        right = torch.randn(batch, count, n, generator=generator, dtype=torch.float64)
        strength = 3 * 0.7 ** torch.arange(count, dtype=torch.float64)
        return ((noise + (left * strength) @ right).to(device, dtype).requires_grad_(),)

    return make


def network(m: int, n: int, batch: int) -> Make:
    """ReLU maps of 24 factors and noise: σ_2 about 0.3 σ_1, then slowly down to a flat tail."""

    def make(generator: torch.Generator, dtype: torch.dtype, device: str):
        factors = torch.randn(batch, m, 24, generator=generator) * torch.linspace(1, 0.1, 24)
        mix = torch.randn(batch, 24, n, generator=generator)
        noise = 0.5 * torch.randn(batch, m, n, generator=generator)
        return ((factors @ mix + noise).relu().to(device, dtype).requires_grad_(),)

    return make


def massive(m: int, n: int, batch: int) -> Make:
    """Tokens of a ViT (m), of which two have massive entries in a few channels: σ_1 is over 50
    times σ_4, more than a Gram matrix resolves."""

    def make(generator: torch.Generator, dtype: torch.dtype, device: str):
        (A,) = network(m, n, batch)(generator, dtype, "cpu")
        A = A.detach()
        A[:, 0, ::97] += 4000
        A[:, 7, 5::89] -= 1500
        return (A.to(device).requires_grad_(),)

    return make


def correlated_maps(levels: list[tuple[int, int, int]], batch: int) -> Make:
    """Maps of student and teacher, in turn per level: low-rank structure, ReLU, none dead."""

    def make(generator: torch.Generator, dtype: torch.dtype, device: str):
        maps = []
        for student in (True, False):
            for c, h, w in levels:
                code = torch.randn(batch, 8, h * w, generator=generator)
                mix = torch.randn(c, 8, generator=generator)
                noise = torch.randn(batch, c, h * w, generator=generator)
                x = (mix @ code + noise + 0.5).relu().view(batch, c, h, w)
                maps.append(x.to(device, dtype).requires_grad_(student))
        return tuple(maps)

    return make
