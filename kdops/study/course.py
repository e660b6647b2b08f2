"""How every network of a study and of the gallery trains: the demo's networks and recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kdops.demo.data import Batches, Images, digits, has_mnist, mnist
from kdops.demo.methods import RECIPES, Prepared, Recipe, Setting, fit_by, sgd
from kdops.demo.nets import Net, accuracy

TEACHER_SEED = 100
N = TypeVar("N", bound=Net)


def usual_images() -> Images:
    """Where no folder is given: the demo's digits, 28 x 28 where they are there."""
    return mnist() if has_mnist() else digits()


@dataclass
class Course:
    """Images and the length of training; an epoch has as many batches as the full set gives, also
    on a part of it, so that less data does not mean fewer steps."""

    images: Images
    batch: int = 25
    epochs: int = 8
    teacher_epochs: int | None = None  # None: as many
    teacher_depth: int = 2
    student_depth: int = 1
    lr: float = 0.05

    def net(self, depth: int, seed: int) -> Net:
        torch.manual_seed(seed)
        return self.placed(Net(self.images.train[0].shape[1], self.images.classes, depth))

    def placed(self, net: N) -> N:
        """Where the images are, in the layout that convolutions are quickest in."""
        device = self.images.train[0].device
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net

    def student(self, seed: int) -> Net:
        return self.net(self.student_depth, seed)

    def teacher(self, depth: int | None = None) -> Net:
        """A network trained alone on the teacher's images."""
        net = self.net(depth or self.teacher_depth, TEACHER_SEED)
        images, epochs = self.images.for_teacher(), self.teacher_epochs
        self.train(net, Prepared(nn.Module()), None, TEACHER_SEED, images, epochs=epochs)
        return net

    def prepare(
        self,
        recipe: Recipe,
        teacher: Net,
        student: Net,
        seed: int,
        *,
        images: Images | None = None,
        peer: Callable[[], Net] | None = None,
    ) -> Prepared:
        """What the recipe trains the student with; peer makes a student that learns along."""
        images = images or self.images
        setting = Setting(images, teacher, None, self.batch, self.epochs, seed,
                          peer or (lambda: self.student(seed + 50)),
                          images.train[0][: self.batch], self.lr)  # fmt: skip
        torch.manual_seed(seed + 200)  # the method's own networks, and their preparation
        prepared = recipe.prepare(setting, student)
        prepared.method.to(images.train[0].device)
        return prepared

    def distil(
        self,
        recipe: Recipe | str | None,
        teacher: Net | None,
        seed: int,
        *,
        images: Images | None = None,
        student: Net | None = None,
        clip: bool | Mapping[str, Any] | None = None,
    ) -> tuple[Net, nn.Module]:
        """A student of that seed, trained by a recipe (or its name; None: alone), and the method.

        clip: instead of the recipe's.
        """
        student, images = student or self.student(seed), images or self.images
        recipe = RECIPES[recipe] if isinstance(recipe, str) else recipe
        if recipe is None or teacher is None:
            prepared = Prepared(nn.Module())
            self.train(student, prepared, None, seed, images)
        else:
            prepared = self.prepare(recipe, teacher, student, seed, images=images)
            self.train(student, prepared, recipe, seed, images, clip=clip)
        return student, prepared.method

    def train(
        self,
        net: Net,
        prepared: Prepared,
        recipe: Recipe | None,
        seed: int,
        images: Images,
        *,
        epochs: int | None = None,
        clip: bool | Mapping[str, Any] | None = None,
    ) -> None:
        """net on prepared.step, or on the task and, with a recipe, on its method."""
        epochs = epochs or self.epochs
        steps = max(len(self.images.train[1]), len(images.train[1])) // self.batch
        loader = Batches(images, self.batch, seed, count=max(steps, 1))
        optimizer = sgd(net, prepared.method, lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        fit_by(recipe, net, prepared, loader, optimizer, epochs, clip=clip, scheduler=schedule,
               step=prepared.step)  # fmt: skip

    def test(self, net: Net) -> float:
        """Test accuracy in per cent."""
        return accuracy(net, *self.images.test)


def part(images: Images, keep: Tensor, batch: int) -> Images:
    """The student's images where keep (N,) is true, as many as fill their last batch of it.

    keep may also be a list of indices. A part smaller than a batch is repeated until it fills one.
    """
    x, y = images.train
    rows = keep.nonzero()[:, 0] if keep.dtype == torch.bool else keep
    rows = rows.to(x.device)
    if len(rows) < batch:
        rows = rows.repeat(-(-batch // max(len(rows), 1)))[:batch]
    rows = rows[: len(rows) // batch * batch]
    return replace(images, train=(x[rows], y[rows]), teacher_train=images.for_teacher().train)


def share(images: Images, rate: float, seed: int) -> Tensor:
    """Indices of that share of every class, at least one image each, in random order."""
    labels = images.train[1].cpu()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    kept = [own[: max(round(rate * len(own)), 1)]
            for own in (order[labels[order] == c] for c in labels.unique())]  # fmt: skip
    rows = torch.cat(kept)
    return rows[torch.randperm(len(rows), generator=generator)]
