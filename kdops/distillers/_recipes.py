"""The sums that the zoos' scripts train, by name: a WeightedSum of soft targets and a method."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from kdops.distillers._base import Distiller
from kdops.distillers.soft_target import LogitDistiller, SoftTarget
from kdops.distillers.weighted_sum import WeightedSum


@dataclass(frozen=True)
class Recipe:
    """weight · method + kd · SoftTarget(temperature); options: the method's, where they are not
    its defaults; source: whose weights they are."""

    method: str
    weight: float
    source: str
    kd: float = 1.0
    temperature: float = 4.0
    options: Mapping[str, Any] = field(default_factory=dict)


REP, MDI, RAZ = "RepDistiller", "mdistiller", "mmrazor"
RECIPES = {
    "ab": Recipe("ActivationBoundary", 1, REP),
    "at": Recipe("AttentionTransfer", 1, f"{REP}, {MDI}"),
    "catkd": Recipe("CATKD", 15, "CAT-KD, ResNet32x4", 0, options={"normalize": False}),
    "cc": Recipe("CC", 1, "AberHu"),
    "crd": Recipe("CRD", 0.8, f"{REP}, {MDI}"),
    "cwd": Recipe("CWD", 5, f"{RAZ}, segmentation", 0, options={"temperature": 1.0}),
    "dist": Recipe("DIST", 1, RAZ, 0, options={"temperature": 1.0, "eps": 1e-8}),
    "dkd": Recipe("DKD", 1, MDI, 0),
    "fitnet": Recipe("FitNet", 100, f"{REP}, {MDI}", options={"relu": True}),
    "fsp": Recipe("FSP", 50, REP, options={"variant": "mse", "pool": "avg"}),
    "ickd": Recipe("ICKD", 2.5, "ICKD's authors"),
    "irg": Recipe("IRG", 1, "AberHu"),
    "kdsvd": Recipe("KDSVD", 1, f"{REP}, {MDI}"),
    "logit-standard": Recipe("SoftTarget", 9, "logit standardisation", 0,
                             options={"standardise": True}),
    "mlkd": Recipe("MLKD", 1, "MLKD's authors", 0),
    "nst": Recipe("NST", 1, f"{REP}, {MDI}"),
    "ofd": Recipe("Overhaul", 1, MDI),
    "pkd": Recipe("PKD", 6, f"{RAZ}, detection", 0),
    "pkt": Recipe("PKT", 3e4, f"{REP}, {MDI}"),
    "reviewkd": Recipe("ReviewKD", 1, MDI),
    "rkd": Recipe("RKD", 1, f"{REP}, {MDI}"),
    "skd": Recipe("SKDDirection", 1, "torchdistill"),
    "sp": Recipe("SimilarityPreserving", 1, f"{REP}, {MDI}"),
    "srd": Recipe("SRD", 2, "torchdistill", temperature=1.0),
    "vid": Recipe("VID", 1, f"{REP}, {MDI}"),
    "wsld": Recipe("WSLD", 2.5, RAZ, 0),
}  # fmt: skip


def recipe(
    name: str,
    student: Any = None,
    teacher: Any = None,
    *,
    kd: float | None = None,
    weight: float | None = None,
    layout: str | None = None,
    **options: Any,
) -> WeightedSum:
    """A zoo's loss by name: WeightedSum {"kd": SoftTarget, name: the method} with its weights.

    >>> import torch
    >>> s, t = torch.randn(8, 64), torch.randn(8, 128)
    >>> loss = recipe("rkd")                       # KL + 25 distance + 50 angle
    >>> loss = recipe("srd", s, t)                 # connectors, from one batch of features
    >>> loss = recipe("crd", s, t, samples=500, kd=0)        # options go to the method

    student, teacher: a batch of features, for methods with connectors. kd, weight: other weights
    than the table's; the task's cross-entropy is the trainer's (fit adds it). Call it as any
    WeightedSum: {"kd": logits, name: features}; fit finds both. A term of weight 0 is left out.
    """
    known = _known(name)
    cls = getattr(importlib.import_module("kdops.distillers"), known.method)
    given = {**known.options, **options}
    method = _built(name, cls, student, teacher, {**given, "layout": layout})
    kd = known.kd if kd is None else float(kd)
    weight = known.weight if weight is None else float(weight)
    terms: dict[str, nn.Module] = {"kd": SoftTarget(known.temperature)} if kd else {}
    terms[name] = method
    return WeightedSum(terms, {"kd": kd, name: weight} if kd else {name: weight}, layout=layout)


def _known(name: str) -> Recipe:
    found = RECIPES.get(name)
    if found is None:
        meant = [*RECIPES, *(known.method.lower() for known in RECIPES.values())]
        near = difflib.get_close_matches(str(name).lower(), meant, n=3, cutoff=0.5)
        of_method = {known.method.lower(): key for key, known in RECIPES.items()}
        keys = list(dict.fromkeys(of_method.get(key, key) for key in near))
        hint = f"; did you mean {' or '.join(map(repr, keys))}?" if keys else ""
        raise ValueError(f"recipe: unknown name {name!r}{hint}; there are {', '.join(RECIPES)}")
    return found


def _built(
    name: str, cls: type[Distiller], student: Any, teacher: Any, options: dict[str, Any]
) -> Distiller:
    if issubclass(cls, LogitDistiller) or (student is None and teacher is None):
        try:
            return cls(**options)
        except TypeError as error:
            raise ValueError(
                f"recipe: {name!r} ({cls.__name__}): {error}; pass one batch of the student's and "
                "the teacher's features, recipe(name, student, teacher), and the options it needs"
            ) from error
    if student is None or teacher is None:
        raise ValueError(f"recipe: {name!r}: give student and teacher features, or neither")
    try:
        return cls.from_sample(student, teacher, **options)
    except TypeError as error:
        raise ValueError(f"recipe: {name!r} ({cls.__name__}): {error}") from error


def recipes() -> str:
    """All of them, in markdown."""
    head = ["name", "method", "weight", "KD", "T", "options", "weights of"]
    lines = [head, ["---"] * len(head)]
    for name, known in RECIPES.items():
        options = ", ".join(f"{key}={value!r}" for key, value in known.options.items())
        kd = f"{known.kd:g}" if known.kd else ""
        temperature = f"{known.temperature:g}" if known.kd else ""
        row = [f"{known.weight:g}", kd, temperature, options, known.source]
        lines.append([f"`{name}`", known.method, *row])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
