"""The demo's networks: a residual network with three stages, teacher deep and student shallow."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdops.features import FeatureTap

WIDTHS = (16, 32, 64)
STAGES = ["stage1", "stage2", "stage3"]


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut; one activation module, so that taps find it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


def stage(inputs: int, outputs: int, stride: int, depth: int) -> nn.Sequential:
    first = Block(inputs, outputs, stride)
    return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(depth - 1)))


class Net(nn.Module):
    """stem, stage1, stage2, stage3, pool, fc; depth residual blocks per stage, last in stage3."""

    def __init__(
        self, channels: int, classes: int, depth: int, scale: int = 1, last: int | None = None
    ) -> None:
        super().__init__()
        a, b, c = (scale * w for w in WIDTHS)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, a, 3, 1, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU()
        )
        self.stage1 = stage(a, a, 1, depth)
        self.stage2 = stage(a, b, 2, depth)
        self.stage3 = stage(b, c, 2, last or depth)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(c, classes)

    @property
    def title(self) -> str:
        """ResNet-8 of one block per stage, as the papers count."""
        stages = (self.stage1, self.stage2, self.stage3)
        return f"ResNet-{2 + 2 * sum(len(s) for s in stages)}"

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.pool(self.stage3(self.stage2(self.stage1(self.stem(x))))))
        return out


def features(net: nn.Module, images: Tensor, layers: list[str], at: str = "output") -> list[Tensor]:
    """Of these layers, in inference mode."""
    training = net.training
    with FeatureTap(net.eval(), layers, at=at) as tap, torch.no_grad():
        net(images)
        found = tap.features
    net.train(training)
    return found


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right answers, in per cent."""
    training = net.training
    net.eval()
    right = sum(
        int((net(x).argmax(1) == y).sum())
        for x, y in zip(images.split(1000), labels.split(1000), strict=True)
    )
    net.train(training)
    return 100.0 * right / len(labels)
