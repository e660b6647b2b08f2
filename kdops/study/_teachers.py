"""Studies of who teaches: sums with soft targets, teachers of several sizes, chains, peers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from kdops import distillers as kd
from kdops.demo.methods import RECIPES, Prepared, Recipe, Setting, on_logits
from kdops.demo.nets import WIDTHS, Net, stage
from kdops.study._data import ALONE
from kdops.study._study import Cells, Lab, Study

NOTHING, SINGLE, SUM = "nothing", "X", "KD + X"


def with_soft_targets(recipe: Recipe) -> Recipe:
    """The method and SoftTarget with their weights as one WeightedSum, clipped as the method."""

    def prepare(setting: Setting, student: Net) -> Prepared:
        found = recipe.prepare(setting, student)
        weights = {"kd": RECIPES["SoftTarget"].weight, "x": recipe.weight}
        method = kd.WeightedSum({"kd": kd.SoftTarget(), "x": found.method}, weights)
        return Prepared(method, found.teacher, found.layers, found.at)

    return Recipe(prepare, clip=recipe.clip)


def _combination(lab: Lab, row: str, column: str, seed: int) -> float:
    if column == NOTHING:
        return lab.test(lab.alone(seed) if row == SINGLE else lab.student("SoftTarget", seed))
    recipe = RECIPES[column]
    return lab.test(lab.student(recipe if row == SINGLE else with_soft_targets(recipe), seed))


COMBINATIONS = Study(
    "combinations",
    "What does a method X add to soft targets (KD)?",
    [SINGLE, SUM],
    [NOTHING, "AttentionTransfer", "RKD", "SimilarityPreserving", "FSP", "VID", "KDSVD"],
    _combination,
    axis="X",
)


class Shaped(Net):
    """A network with as many blocks in its three stages."""

    def __init__(self, channels: int, classes: int, blocks: Sequence[int]) -> None:
        super().__init__(channels, classes, 1)
        a, b, c = WIDTHS
        self.stage1 = stage(a, a, 1, blocks[0])
        self.stage2 = stage(a, b, 2, blocks[1])
        self.stage3 = stage(b, c, 2, blocks[2])


def _choice(lab: Lab, row: str, column: str, seed: int) -> float:
    images = lab.course.images
    torch.manual_seed(seed)
    blocks = [int(n) for n in row.split("-")]
    student = lab.course.placed(Shaped(images.train[0].shape[1], images.classes, blocks))
    if column == "no teacher":
        return lab.test(lab.student(None, seed, student=student))
    teacher = lab.teacher(int(column.removeprefix("depth ")))
    return lab.test(lab.student("SoftTarget", seed, student=student, teacher=teacher))


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """τ of two rankings: (concordant - discordant pairs) / pairs; ties count for neither."""
    pairs = list(combinations(range(len(x)), 2))
    product = [(x[i] - x[j]) * (y[i] - y[j]) for i, j in pairs]
    return sum((p > 0) - (p < 0) for p in product) / len(pairs)


def _agreement(cells: Cells, rows: Sequence[str], columns: Sequence[str]) -> str:
    """How alike two teachers rank the students."""
    if len(rows) < 2 or len(columns) < 2:
        return "rankings need two students and two teachers"
    lines = ["agreement of the students' rankings (Kendall's tau, 1 the same order, -1 reversed):"]
    for a, b in combinations(columns, 2):
        x, y = ([cells[row, column] for row in rows] for column in (a, b))
        known = [(p, q) for p, q in zip(x, y, strict=True) if p is not None and q is not None]
        if len(known) > 1:
            lines.append(f"  {a} and {b}: {kendall(*zip(*known, strict=True)):+.2f}")
    return "\n".join(lines)


TEACHERS = Study(
    "teachers",
    "Does the best student depend on the teacher? (blocks per stage)",
    ["1-1-1", "2-1-1", "1-2-1", "1-1-2", "2-2-2"],
    ["no teacher", "depth 2", "depth 3", "depth 4"],
    _choice,
    axis="teacher",
    remark=_agreement,
)

SINGLE_NET, ENSEMBLE = "the generation itself", "ensemble of all so far"


def _generation(lab: Lab, count: int, seed: int) -> Net:
    """Number 0 is trained alone, every later one by the one before."""

    def make() -> Net:
        if not count:
            return lab.alone(seed)
        fresh = lab.course.student(seed + 1000 * count)
        before = _generation(lab, count - 1, seed)
        recipe = Recipe(on_logits(kd.BornAgain))
        return lab.student(recipe, seed + 1000 * count, student=fresh, teacher=before)

    net: Net = lab.once(("generation", count, seed), make)
    return net


class _Ensemble(nn.Module):
    """The mean of the networks' logits."""

    def __init__(self, nets: Sequence[Net]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        return kd.BornAgain.ensemble([net(x) for net in self.nets])


def _born_again(lab: Lab, row: str, column: str, seed: int) -> float:
    nets = [_generation(lab, i, seed) for i in range(int(column) + 1)]
    net: Any = nets[-1] if row == SINGLE_NET else _Ensemble(nets)
    return lab.test(net)


BORN_AGAIN = Study(
    "born-again",
    "Do students of their own kind get better by the generation?",
    [SINGLE_NET, ENSEMBLE],
    ["0", "1", "2", "3"],
    _born_again,
    axis="generation",
    lines=True,
)


def _chain(lab: Lab, depths: Sequence[int], seed: int) -> Net:
    """The last network of a chain whose first is trained alone."""

    def make() -> Net:
        learner = lab.course.net(depths[-1], seed)
        teacher = _chain(lab, depths[:-1], seed)
        return lab.student("SoftTarget", seed, student=learner, teacher=teacher)

    if len(depths) == 1:
        return lab.teacher(depths[0])
    net: Net = lab.once(("chain", tuple(depths), seed), make)
    return net


def _assistants(lab: Lab, row: str, column: str, seed: int) -> float:
    depths = [int(n) for n in row.split(" > ")]
    return lab.test(lab.alone(seed) if len(depths) == 1 else _chain(lab, depths, seed))


ASSISTANTS = Study(
    "assistants",
    "Does an assistant between teacher and student help? (blocks per stage)",
    ["1", "4 > 1", "4 > 3 > 1", "4 > 2 > 1", "4 > 3 > 2 > 1"],
    ["student"],
    _assistants,
    axis="chain",
)


def _mutual(lab: Lab, row: str, column: str, seed: int) -> float:
    own = int(row.removeprefix("depth "))
    net = lab.course.net(own, seed)
    if column == ALONE:
        return lab.test(lab.student(None, seed, student=net))
    peer = int(column.removeprefix("with depth "))
    recipe, course = RECIPES["DeepMutual"], lab.course
    prepared = course.prepare(recipe, net, net, seed, peer=lambda: course.net(peer, seed + 50))
    course.train(net, prepared, recipe, seed, course.images)
    return lab.test(net)


MUTUAL = Study(
    "mutual",
    "What does a network gain from a peer that learns along? (blocks per stage)",
    ["depth 1", "depth 3"],
    [ALONE, "with depth 1", "with depth 3"],
    _mutual,
    axis="training",
)
