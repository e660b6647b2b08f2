"""The network that the tests of ModelOpt and torchdistill distil."""

from torch import nn


class Net(nn.Module):  # no Sequential: ModelOpt adds a child, which would run
    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.second(self.first(x).tanh()).tanh()
        return self.head(x.mean((2, 3)))
