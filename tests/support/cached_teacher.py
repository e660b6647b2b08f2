"""A small teacher, its images and a cache of what it says."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from kdops.training import TeacherCache

LAYERS = ["1", "3"]


class Images(Dataset):
    """Ten images of noise; noisy: other noise at every reading."""

    def __init__(self, count=10, seed=0, noisy=False):
        g = torch.Generator().manual_seed(seed)
        self.x = torch.randn(count, 3, 6, 6, generator=g)
        self.y = torch.randint(0, 4, (count,), generator=g)
        self.noisy, self.read = noisy, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.read.append(i)
        return self.x[i] + (torch.randn(()) if self.noisy else 0), self.y[i]


class Named(Images):
    """Batches that are dicts."""

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return {"input": x, "labels": y}


def network(width, seed):
    torch.manual_seed(seed)
    convolutions = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(4 * width, 4))


def loader(dataset, **options):
    return DataLoader(dataset, **{"batch_size": 4, **options})


def filled(path, teacher, dataset, layers=LAYERS, **options):
    cache = TeacherCache(path, teacher, layers, **options)
    return cache.fill(loader(dataset), progress=False)
