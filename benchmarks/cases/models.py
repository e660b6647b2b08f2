"""Teacher/student pairs of the published iteration-time table, CIFAR-size input (3, 32, 32).

ResNet32 -> ResNet8 with doubled depth: in the authors' code "depth" is the number of channels, so
both nets have 32, 64, 128 instead of 16, 32, 64. WRN40-4 -> WRN16-4: pre-activation blocks with 64,
128, 256 channels. A net returns `Output`: logits, the three stages' maps after and before their
last ReLU, and the pooled embedding.
"""

from __future__ import annotations

from typing import NamedTuple

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
