"""Teacher/student pairs: PAIRS of the published iteration-time table, CIFAR-size input (3, 32, 32),
and LARGE, what people distil at 224 pixels (3, 224, 224).

ResNet32 -> ResNet8 with doubled depth: in the authors' code "depth" is the number of channels, so
both nets have 32, 64, 128 instead of 16, 32, 64. WRN40-4 -> WRN16-4: pre-activation blocks with 64,
128, 256 channels. A net returns `Output`: logits, the three stages' maps after and before their
last ReLU, and the pooled embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Output(NamedTuple):
    """What distillers read. maps and pre: three tensors (B, C, H, W)."""

    logits: Tensor
    maps: list[Tensor]
    pre: list[Tensor]
    embedding: Tensor


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class BasicBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus shortcut; the sum is returned before its ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x)


class PreActivationBlock(nn.Module):
    """BN-ReLU-conv twice plus shortcut, as in wide residual networks."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), _conv(outputs, outputs)
        self.shortcut = _conv(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        x = x if self.shortcut is None else self.shortcut(y)
        return x + self.conv2(F.relu(self.bn2(self.conv1(y))))


class Net(nn.Module):
    """Stem, three stages of `blocks` blocks, pooling, classifier."""

    def __init__(
        self, block: type[nn.Module], stem: int, channels: list[int], blocks: int, classes: int
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, stem), nn.BatchNorm2d(stem))
        self.stages = nn.ModuleList()
        inputs = stem
        for i, outputs in enumerate(channels):
            first = block(inputs, outputs, 1 if i == 0 else 2)
            rest = [block(outputs, outputs, 1) for _ in range(blocks - 1)]
            self.stages.append(nn.Sequential(first, *rest))
            inputs = outputs
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in channels)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Output:
        x = self.stem(images)
        maps, pre = [], []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = stage(x)
            pre.append(norm(x))
            maps.append(F.relu(pre[-1]))
        embedding = maps[-1].mean((2, 3))
        return Output(self.classifier(embedding), maps, pre, embedding)


def resnet(depth: int, classes: int = 100) -> Net:
    """ResNet of 6n + 2 layers with doubled channels."""
    return Net(BasicBlock, 32, [32, 64, 128], (depth - 2) // 6, classes)


def wide_resnet(depth: int, width: int = 4, classes: int = 100) -> Net:
    """WRN of 6n + 4 layers."""
    channels = [16 * width, 32 * width, 64 * width]
    return Net(PreActivationBlock, 16, channels, (depth - 4) // 6, classes)


PAIRS = {
    "ResNet32-ResNet8": lambda: (resnet(32), resnet(8)),
    "WRN40-4 - WRN16-4": lambda: (wide_resnet(40), wide_resnet(16)),
}


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 to four times the channels, plus shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        width = outputs // 4
        sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        self.convs = nn.ModuleList(_conv(*size) for size in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(size[1]) for size in sizes)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        x = y = F.relu(x)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(F.relu(y) if i else y))
        return y + self.shortcut(x)


class ImageNet(nn.Module):
    """ResNet-18 or -50: 7x7 stem, pooling, four stages of 56, 28, 14 and 7 positions a side."""

    def __init__(
        self, block: type[nn.Module], channels: list[int], blocks: list[int], classes: int = 100
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.stages = nn.ModuleList()
        inputs = 64
        for i, (outputs, count) in enumerate(zip(channels, blocks, strict=True)):
            first = block(inputs, outputs, 1 if i == 0 else 2)
            rest = [block(outputs, outputs, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(first, *rest))
            inputs = outputs
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(F.relu(x))
        return self.classifier(maps[-1].mean((2, 3))), maps


class Encoder(nn.Module):
    """LayerNorm, attention, LayerNorm, MLP of four times the width; both with a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.out(attended)
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """16x16 patches of 224 pixels, twelve blocks, mean over the 196 tokens instead of CLS."""

    def __init__(self, width: int, heads: int, classes: int = 100) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.position = nn.Parameter(0.02 * torch.randn(1, 196, width))
        self.blocks = nn.ModuleList(Encoder(width, heads) for _ in range(12))
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, maps = self.patches(images).flatten(2).mT + self.position, []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i % 3 == 2:
                maps.append(x.mT.unflatten(2, (14, 14)))
        return self.classifier(self.norm(x).mean(1)), maps


def imagenet(depth: int) -> ImageNet:
    """ResNet-18 or ResNet-50."""
    if depth == 18:
        return ImageNet(BasicBlock, [64, 128, 256, 512], [2, 2, 2, 2])
    return ImageNet(Bottleneck, [256, 512, 1024, 2048], [3, 4, 6, 3])


LARGE = {
    "ResNet50-ResNet18 at 224": lambda: (imagenet(50), imagenet(18)),
    "ViT-small - ViT-tiny at 224": lambda: (ViT(384, 6), ViT(192, 3)),
}
