"""A ResNet with torchvision's layer names (conv1, layer1 ... layer4, fc)."""

import torch
from torch import Tensor, nn

try:
    from torchvision.models.resnet import BasicBlock, ResNet

    def resnet(depth: int, classes: int = 10) -> nn.Module:
        return ResNet(BasicBlock, [depth] * 4, num_classes=classes)

except (ImportError, RuntimeError):  # the latter: a torchvision for another build of torch

    class BasicBlock(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1, self.relu = nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.downsample = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))

    class ResNet(nn.Module):
        def __init__(self, depth: int, classes: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            widths = [64, 64, 128, 256, 512]
            for i in range(1, 5):
                blocks = [
                    BasicBlock(widths[i - 1] if j == 0 else widths[i], widths[i], 1 + (j == 0 < i))
                    for j in range(depth)
                ]
                setattr(self, f"layer{i}", nn.Sequential(*blocks))
            self.fc = nn.Linear(512, classes)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer4(self.layer3(self.layer2(self.layer1(torch.relu(self.conv1(x))))))
            return self.fc(x.mean((2, 3)))

    def resnet(depth: int, classes: int = 10) -> nn.Module:
        return ResNet(depth, classes)
