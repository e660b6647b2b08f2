"""How the demo uses every distiller: which features, which extra networks, which weight."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdops import distillers as kd
from kdops.demo.data import Batches, Images
from kdops.demo.nets import STAGES, Net, features
from kdops.distillers._base import Distiller
from kdops.features import FeatureStream
from kdops.training import Step, fit


@dataclass
class Setting:
    """What a method may use: the data, a trained teacher, and a baseline student of the seed."""

    images: Images
    teacher: Net
    baseline: Net | None
    batch: int
    epochs: int
    seed: int
    make_student: Callable[[], Net]
    sample: Tensor  # one batch of images, to build connectors
    lr: float = 0.05

    def features(self, student: Net, layers: list[str], at: str) -> list[list[Tensor]]:
        return [features(net, self.sample, layers, at) for net in (student, self.teacher)]

    def stream(self, layers: list[str], at: str) -> FeatureStream:
        loader = Batches(self.images, self.batch, 1000 + self.seed)
        return FeatureStream(self.teacher, layers, loader, at=at)


@dataclass
class Prepared:
    """What fit needs for one run."""

    method: nn.Module
    teacher: nn.Module | None = None
    layers: tuple[list[str], list[str]] | None = None
    at: str = "output"
    step: Step | None = None


@dataclass
class Recipe:
    """prepare(setting, student) -> Prepared. weight multiplies the loss; clip: clip_to_main."""

    prepare: Callable[[Setting, Net], Prepared]
    weight: float = 1.0
    clip: bool = False
    operators: list[str] = field(default_factory=list)  # the kdops operators behind it
    indexed: bool = False  # whether it needs to know which images a batch holds
    baseline: bool = False  # whether it needs the student of the seed that was trained alone


def fit_by(
    recipe: Recipe | None, net: Net, prepared: Prepared, loader: Batches,
    optimizer: torch.optim.Optimizer, epochs: int, *, weight: float | None = None,
    clip: bool | Mapping[str, Any] | None = None, **options: Any,
) -> list[dict[str, float]]:  # fmt: skip
    """fit's rows, by the recipe or, without one, alone; weight, clip: instead of the recipe's."""
    loader.indexed = bool(recipe and recipe.indexed)
    if recipe is not None:
        options["weight"] = recipe.weight if weight is None else weight
        options["clip"] = recipe.clip if clip is None else clip
    return fit(net, prepared.teacher, prepared.method if recipe else None, loader, epochs=epochs,
               layers=prepared.layers, at=prepared.at, optimizer=optimizer, progress=False,
               **options)  # fmt: skip


def on_logits(make: Callable[[], nn.Module]) -> Callable[[Setting, Net], Prepared]:
    return lambda setting, student: Prepared(make(), setting.teacher)


def on_features(
    make: Callable[[list[Tensor], list[Tensor]], nn.Module],
    layers: list[str] | None = None,
    at: str = "output",
    epochs: int | None = None,
) -> Callable[[Setting, Net], Prepared]:
    """A method on tapped layers; epochs: of its preparatory phase on the teacher."""
    names = layers or STAGES

    def prepare(setting: Setting, student: Net) -> Prepared:
        method = make(*setting.features(student, names, at)).to(setting.sample.device)
        if isinstance(method, Distiller):
            batches = setting.stream(names, at)
            method.prepare(batches, epochs=epochs or 5, progress=False)  # the demo has a bar
        return Prepared(method, setting.teacher, (names, names), at)

    return prepare


class _WithPeer(nn.Module):
    """DeepMutual and a second student that trains along."""

    def __init__(self, peer: Net) -> None:
        super().__init__()
        self.peer, self.method = peer, kd.DeepMutual()


def _mutual(setting: Setting, student: Net) -> Prepared:
    both = _WithPeer(setting.make_student().to(setting.sample.device))

    def step(batch: Any, epoch: int) -> tuple[Tensor, Tensor]:
        images, target = batch
        nets = [student(images), both.peer(images)]
        own, other = both.method.per_net(nets, target)
        main = F.cross_entropy(nets[0], target)
        return main, own - main + other

    return Prepared(both, step=step)


def _ensemble(setting: Setting, student: Net) -> Prepared:
    tail = nn.Sequential(student.stage3, student.pool, student.fc)
    branches = nn.ModuleList(copy.deepcopy(tail) for _ in range(2))
    method = kd.OnTheFlyEnsemble(student.fc.in_features // 2, 3, ramp=10)
    extra = nn.ModuleDict({"branches": branches, "method": method}).to(setting.sample.device)

    def step(batch: Any, epoch: int) -> tuple[Tensor, Tensor]:
        images, target = batch
        trunk = student.stage2(student.stage1(student.stem(images)))
        logits = [tail(trunk), *(branch(trunk) for branch in branches)]
        main = F.cross_entropy(logits[0], target)
        return main, method(logits, trunk, target, epoch) - main

    return Prepared(extra, step=step)


def _contrast(setting: Setting, student: Net) -> Prepared:
    """CRD with a memory of the demo's images."""
    samples = len(setting.images.train[1])
    return on_features(partial(kd.CRD.from_sample, samples=samples, negatives=64), ["pool"])(
        setting, student
    )


def _born_again(setting: Setting, student: Net) -> Prepared:
    assert setting.baseline is not None
    return Prepared(kd.BornAgain(), setting.baseline)


def _assistant(setting: Setting, student: Net) -> Prepared:
    """A student with the teacher's last stage, itself distilled from the teacher."""
    depth, last = len(student.stage1), len(setting.teacher.stage3)
    channels, classes = setting.sample.shape[1], setting.images.classes
    assistant = Net(channels, classes, depth, last=last).to(setting.sample.device)
    loader = Batches(setting.images, setting.batch, 2000 + setting.seed)
    fit(assistant, setting.teacher, kd.TeacherAssistant(), loader, epochs=setting.epochs,
        optimizer=sgd(assistant, lr=setting.lr), progress=False)  # fmt: skip
    return Prepared(kd.TeacherAssistant(), assistant)


class _LogitsAndEmbeddings(nn.Module):
    """WeightedSum of soft targets and relations, fed from two tapped layers."""

    def __init__(self) -> None:
        super().__init__()
        terms = {"kd": kd.SoftTarget(), "rkd": kd.RKD(1.0, 2.0)}
        self.method = kd.WeightedSum(terms, {"kd": 0.5})

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Any:
        names = ("rkd", "kd")
        return self.method(*(dict(zip(names, x, strict=True)) for x in (student, teacher)))


def sgd(*modules: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    """One optimizer for every run of the demo."""
    trained = [p for m in modules for p in m.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr, 0.9, weight_decay=1e-3, nesterov=True)


RECIPES: dict[str, Recipe] = {
    "SoftTarget": Recipe(on_logits(kd.SoftTarget)),
    "RKD": Recipe(on_features(lambda s, t: kd.RKD(), ["pool"]), 0.1,
                  operators=["rkd_distance_loss", "rkd_angle_loss"]),
    "FSP": Recipe(on_features(lambda s, t: kd.FSP.from_sample(s, t, variant="mse")), 0.5,
                  operators=["fsp_loss"]),
    "KDSVD": Recipe(on_features(kd.KDSVD.from_sample), clip=True,
                    operators=["batched_svd", "svd_rbf_loss"]),
    "AttentionTransfer": Recipe(on_features(lambda s, t: kd.AttentionTransfer()), 0.02,
                                operators=["attention_loss"]),
    "ActivationBoundary": Recipe(on_features(kd.ActivationBoundary.from_sample, None,
                                             "pre_activation")),
    "MHGD": Recipe(on_features(kd.MHGD.from_sample), 0.1, clip=True, operators=["batched_svd"]),
    "IEP": Recipe(on_features(kd.IEP.from_sample), 0.1, clip=True, operators=["batched_svd"]),
    "SimilarityPreserving": Recipe(on_features(lambda s, t: kd.SimilarityPreserving(),
                                               ["stage3"]), 0.1, operators=["similarity_loss"]),
    "NST": Recipe(on_features(lambda s, t: kd.NST(), ["stage3"]), 0.1, operators=["nst_loss"]),
    "FactorTransfer": Recipe(on_features(kd.FactorTransfer.from_sample, ["stage3"]), 50.0),
    "Overhaul": Recipe(on_features(kd.Overhaul.from_sample, None, "pre_activation")),
    "DeepMutual": Recipe(_mutual),
    "OnTheFlyEnsemble": Recipe(_ensemble),
    "BornAgain": Recipe(_born_again, baseline=True),
    "TeacherAssistant": Recipe(_assistant),
    "LearningWithoutForgetting": Recipe(on_logits(kd.LearningWithoutForgetting)),
    "DKD": Recipe(on_logits(kd.DKD)),
    "DIST": Recipe(on_logits(kd.DIST), 0.2),
    "WSLD": Recipe(on_logits(kd.WSLD), 2.5),
    "MLKD": Recipe(on_logits(kd.MLKD), 0.1),
    "SKDDirection": Recipe(on_logits(kd.SKDDirection), 0.1),
    "CC": Recipe(on_features(lambda s, t: kd.CC(), ["pool"])),
    "RSD": Recipe(on_features(kd.RSD.from_sample, ["pool"]), 0.1),
    "IRG": Recipe(on_features(lambda s, t: kd.IRG(), ["stage2", "stage3", "pool", "fc"]),
                  operators=["pairwise_distance"]),
    "DarkRank": Recipe(on_features(lambda s, t: kd.DarkRank(normalize=True), ["pool"]), 0.1,
                       operators=["pairwise_distance"]),
    "CWD": Recipe(on_features(kd.CWD.from_sample, ["stage3"])),
    "PKD": Recipe(on_features(kd.PKD.from_sample, ["stage3"])),
    "SRD": Recipe(on_features(kd.SRD.from_sample, ["pool"]), 0.1),
    "CATKD": Recipe(on_features(lambda s, t: kd.CATKD(), ["stage3"])),
    "ReviewKD": Recipe(on_features(kd.ReviewKD.from_sample)),
    "CRD": Recipe(_contrast, 0.2, indexed=True),
    "WeightedSum": Recipe(on_features(lambda s, t: _LogitsAndEmbeddings(), ["pool", "fc"]),
                          operators=["rkd_distance_loss", "rkd_angle_loss"]),
}  # fmt: skip


def _usual(method: type[Distiller]) -> Recipe:
    """Of a method that needs no line above, from what its class says that it takes."""
    if method.takes[0] == "logits":
        return Recipe(on_logits(method))
    return Recipe(on_features(method.from_sample, None if "map" in method.takes else ["pool"]))


RECIPES |= {name: _usual(getattr(kd, name)) for name in kd.__all__ if name not in RECIPES}
