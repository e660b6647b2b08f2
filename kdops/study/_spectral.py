"""Studies of KD-SVD's choices: vectors, stages, clipping."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdops import distillers as kd
from kdops.demo.methods import RECIPES, Prepared, Recipe, on_features
from kdops.demo.nets import STAGES, Net, features
from kdops.features import FeatureTap
from kdops.study._data import ALONE
from kdops.study._study import Lab, Published, Study


def _vectors(lab: Lab, row: str, column: str, seed: int) -> float | None:
    if row == ALONE:
        return lab.test(lab.alone(seed))
    k, sample = int(column), lab.course.images.train[0][:2]
    found = features(lab.course.student(seed), sample, STAGES)
    if k > min(min(x.shape[1], x[0, 0].numel()) for x in found):
        return None  # a level has fewer positions or channels
    recipe = Recipe(on_features(partial(kd.KDSVD.from_sample, k=k)), clip=True)
    return lab.test(lab.student(recipe, seed))


VECTORS = Study(
    "vectors",
    "How many singular vectors does KD-SVD need?",
    [ALONE, "KDSVD"],
    ["1", "2", "4", "8", "16"],
    _vectors,
    axis="singular vectors",
    lines=True,
    published=Published(
        "KD-SVD, Lee et al. 2018",
        ["1", "2", "4", "8", "16"],
        {"KD-SVD": [73.57, 73.76, 73.84, 73.86, 73.71]},
    ),
)

ONE, TWO = "one stage", "two stages"


def _stages(lab: Lab, row: str, column: str, seed: int) -> float:
    if row == ALONE:
        return lab.test(lab.alone(seed))
    if row == ONE:
        return lab.test(lab.student(column, seed))
    return lab.test(_in_two_stages(lab, RECIPES[column], seed))


def _in_two_stages(lab: Lab, recipe: Recipe, seed: int) -> Net:
    """Half of the epochs on the method alone, the other half on the task alone."""
    course, teacher = lab.course, lab.teacher().eval()
    student = course.student(seed)
    prepared = course.prepare(recipe, teacher, student, seed)
    assert prepared.layers is not None
    names_s, names_t = prepared.layers
    half = max(course.epochs // 2, 1)
    with (
        FeatureTap(student, names_s, at=prepared.at) as s,
        FeatureTap(teacher, names_t, at=prepared.at) as t,
    ):

        def step(batch: Any, epoch: int) -> tuple[Tensor, None]:
            student(batch[0])
            with torch.no_grad():
                teacher(batch[0])
            return prepared.method(s.features, t.features), None

        first = Prepared(prepared.method, step=step)
        course.train(student, first, None, seed, course.images, epochs=half)
    last = max(course.epochs - half, 1)
    course.train(student, Prepared(nn.Module()), None, seed + 1, course.images, epochs=last)
    return student


STAGES_STUDY = Study(
    "stages",
    "Distil and learn the task at once, or one after the other in as many epochs?",
    [ALONE, ONE, TWO],
    ["KDSVD", "FSP", "FitNet", "AttentionTransfer"],
    _stages,
    axis="method",
)

RULES: dict[str, bool | Mapping[str, Any]] = {
    "no clip": False,
    "per parameter": True,
    "global": {"per": "global"},
    "global, every 10": {"per": "global", "every": 10},
}


def _clip(lab: Lab, row: str, column: str, seed: int) -> float:
    return lab.test(lab.student(column, seed, clip=RULES[row]))


CLIP = Study(
    "clip",
    "How should the distiller's gradient be clipped to the task's?",
    list(RULES),
    ["KDSVD", "MHGD", "RKD", "AttentionTransfer"],
    _clip,
    axis="method",
)
