"""Studies of the data that a student sees: how much, and which classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdops import distillers as kd
from kdops.demo.data import Images
from kdops.demo.methods import Prepared
from kdops.demo.nets import Net
from kdops.study._study import Lab, Study
from kdops.study.course import part, share

ALONE = "alone"


def _rate(lab: Lab, row: str, column: str, seed: int) -> float:
    course = lab.course
    images = part(course.images, share(course.images, float(column), seed), course.batch)
    recipe = None if row == ALONE else row
    return lab.test(lab.student(recipe, seed, images=images))


RATES = Study(
    "rates",
    "How much data does a student need, by method?",
    [ALONE, "SoftTarget", "AttentionTransfer", "RKD", "VID", "KDSVD", "MHGD", "IEP"],
    ["1", "0.5", "0.25", "0.1"],
    _rate,
    axis="share of the students' images",
    lines=True,
)

HARD, SOFT, BIAS = "hard labels", "soft targets", "soft targets, bias"
MISSING = "missing classes: "
SETS = {"all classes": None, "without 3": [3], "only 7 and 8": [7, 8]}
OFFSETS = torch.arange(0, 15.25, 0.25)


def _transfer(lab: Lab, row: str, column: str, seed: int) -> float | None:
    """Accuracy of all test images, or of those of the classes that the transfer set lacks."""
    classes = lab.course.images.classes
    named = SETS[column]
    if named is not None and max(named) >= classes:
        return None
    seen = torch.ones(classes, dtype=torch.bool)
    if named is not None:
        seen[named] = False
        seen = ~seen if len(named) > 1 else seen
    wanted, kind = row.startswith(MISSING), row.removeprefix(MISSING)
    if seen.all() and (wanted or kind == BIAS):
        return None
    net = lab.once(("transfer", kind == HARD, column, seed),
                   lambda: _transferred(lab, kind == HARD, seen, seed))  # fmt: skip
    logits, labels = _logits(net, lab.course.images.test)
    if kind == BIAS:
        logits = logits + (~seen) * best_offset(*_logits(net, _known(lab.course.images)), ~seen)
    right = (logits.argmax(1) == labels).float()
    return 100 * float(right[~seen[labels]].mean() if wanted else right.mean())


def _known(images: Images) -> tuple[Tensor, Tensor]:
    """The teacher's training images, by which the biases are set: never the test's."""
    return images.for_teacher().train


def _transferred(lab: Lab, hard: bool, seen: Tensor, seed: int) -> Net:
    course = lab.course
    images = part(course.images, seen[course.images.train[1].cpu()], course.batch)
    student, teacher = course.student(seed), lab.teacher().eval()
    method = kd.SoftTarget()

    def step(batch: Any, epoch: int) -> tuple[Tensor, None]:
        with torch.no_grad():
            soft = teacher(batch[0])
        return method(student(batch[0]), soft), None

    prepared = Prepared(nn.Module(), step=None if hard else step)
    course.train(student, prepared, None, seed, images)
    return student.eval()


@torch.no_grad()
def _logits(net: Net, images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    net.eval()
    return torch.cat([net(x) for x in images[0].split(1000)]).cpu(), images[1].cpu()


def best_offset(logits: Tensor, labels: Tensor, missing: Tensor) -> Tensor:
    """What to add to the logits of the missing classes: most right answers, of equals the least."""
    right = [((logits + missing * c).argmax(1) == labels).sum() for c in OFFSETS]
    return OFFSETS[int(torch.stack(right).argmax())]


TRANSFER = Study(
    "transfer",
    "Does a student learn classes that its transfer set lacks?",
    [HARD, SOFT, BIAS, *(MISSING + kind for kind in (HARD, SOFT, BIAS))],
    list(SETS),
    _transfer,
    axis="transfer set",
)
