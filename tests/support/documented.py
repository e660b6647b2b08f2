"""What the code in README, docs and docstrings takes for given: two small networks and their data.

`stage(page)` has the names that any page may use without a word, and those of the page itself.
"""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import kdops
from kdops import FeatureTap, distillers, training
from kdops.distributed import gather_batch

DATA = [(torch.randn(3, 8, 8), i % 3) for i in range(4)]


class Net(nn.Module):
    """Layers of the names of torchvision's ResNets."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(3, width, 3, padding=1)
        self.layer2 = nn.Sequential(nn.Sequential(nn.Conv2d(width, width, 3, 2, 1)))
        self.layer2[0].relu = nn.ReLU()
        self.layer3, self.fc = nn.Conv2d(width, width, 3, padding=1), nn.Linear(width, 3)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(x).relu())).relu()
        return self.fc(x.mean((2, 3)))


class ViT(nn.Module):
    """16 patches and CLS."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.cls = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = nn.Sequential(*(nn.Linear(8, 8) for _ in range(8)))

    def forward(self, x):
        x = self.patch(x).flatten(2).mT
        return self.blocks(torch.cat([self.cls.expand(len(x), -1, -1), x], 1))[:, 0]


def stage(folder):
    """The names that a page or a docstring may use without a word; files go to `folder`."""
    torch.manual_seed(0)
    names = ["layer1", "layer2"]
    given = {
        "torch": torch, "kdops": kdops, "FeatureTap": FeatureTap, "DataLoader": DataLoader,
        "DistributedDataParallel": DistributedDataParallel, "gather_batch": gather_batch,
        "student": Net(), "teacher": Net(), "wide_teacher": Net(12), "model": Net(),
        "vit": ViT(), "teacher_vit": ViT(), "method": distillers.KDSVD(), "folder": folder,
        "names": names, "student_names": names, "teacher_names": names, "layers": (names, names),
        "dataset": DATA, "loader": DataLoader(DATA, 4), "index": torch.arange(2),
        "images": torch.stack([x for x, _ in DATA]), "y": torch.arange(3),
        "student_tokens": torch.randn(2, 4, 5, 8).unbind(), "z_s": torch.randn(3, 4),
        "teacher_tokens": torch.randn(2, 4, 5, 8).unbind(), "z_t": torch.randn(3, 4),
        "student_embedding": torch.randn(4, 8), "teacher_embedding": torch.randn(4, 6),
        "x": torch.randn(2, 3, 4), "x_s": torch.randn(3, 4), "x_t": torch.randn(3, 6),
        "M": torch.randn(2, 3, 3), "covariance": torch.eye(3), "eps": 1e-5,
        "A": torch.randn(3, 6, 4), "delta": torch.randn(2, 12, 10),
    }  # fmt: skip
    given |= {name: getattr(distillers, name) for name in distillers.__all__}
    return given | {name: getattr(training, name) for name in ("fit", "Indexed", "TeacherCache")}
