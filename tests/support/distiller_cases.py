"""Helpers of the distiller tests: gradients, and one Case per method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdops import distillers as kd

SHAPES = [(8, 8, 8), (12, 4, 4), (12, 4, 4)]  # (C, H, W) of the levels


def leaf(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
    return x.requires_grad_(True)


def maps(batch: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [leaf(batch, *s, seed=seed + i, dtype=dtype) for i, s in enumerate(SHAPES)]


def same_loss_and_gradient(ours: Tensor, theirs: Tensor, inputs: list[Tensor], tol: float = 1e-9):
    """Loss and the gradients of all inputs agree; neither is trivially zero."""
    assert ours.shape == ()
    torch.testing.assert_close(ours, theirs, rtol=tol, atol=tol)
    g_ours = torch.autograd.grad(ours, inputs, retain_graph=True)
    g_theirs = torch.autograd.grad(theirs, inputs, retain_graph=True)
    for a, b in zip(g_ours, g_theirs, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=tol, atol=tol * float(b.abs().max()))


def randomise_(module: nn.Module, seed: int = 0) -> None:
    """Every parameter away from special values (a BatchNorm of ones and zeros hides errors)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.add_(0.2 * noise.to(p.dtype))


def said(method, layout):
    """The method, told what three dimensions are."""
    for part in method.modules():
        if isinstance(part, kd._base.Distiller):
            part.layout = layout
    return method


@dataclass
class Case:
    """One method, built for a sample and ready to be called as method(student, teacher)."""

    name: str
    build: Callable[[list[Tensor], list[Tensor]], nn.Module]
    inputs: str = "maps"  # "maps", "vectors" (B, 24), "logits" (B, 10)

    @property
    def method(self) -> str:
        return self.name.partition("-")[0]

    def features(self, batch: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64):
        if self.inputs == "maps":
            return maps(batch, seed, dtype)
        return [leaf(batch, 24 if self.inputs == "vectors" else 10, seed=seed, dtype=dtype)]


class Branches(nn.Module):
    """OnTheFlyEnsemble in the (student, teacher) form: two branches read off one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.method = kd.OnTheFlyEnsemble(10, 2).double()

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        z = student[0]
        return self.method([z, 2 * z.flip(0)], z, teacher[0].argmax(1))


class Mutual(nn.Module):
    """DeepMutual in the (student, teacher) form."""

    def __init__(self) -> None:
        super().__init__()
        self.method = kd.DeepMutual()

    def forward(self, student: list[Tensor], teacher: list[Tensor], **options) -> Tensor:
        return self.method.against(student[0], [teacher[0], 2 * teacher[0]], **options)


class OnTensors(nn.Module):
    """A method of single tensors called with lists of one."""

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, student: list[Tensor], teacher: list[Tensor], **options) -> Tensor:
        return self.method(student[0], teacher[0], **options)


class Labelled(OnTensors):
    """A method of logits that needs the samples' classes: the teacher's likeliest."""

    def forward(self, student: list[Tensor], teacher: list[Tensor], **options) -> Tensor:
        s, t = student[0], teacher[0]
        tokens = t.ndim == 3 and getattr(t, "_kdops_layout", self.method.layout) == "tokens"
        likely = t.detach().argmax(-1 if tokens and not hasattr(t, "_kdops_layout") else 1)
        return self.method(s, t, likely, **options)


class Remembering(nn.Module):
    """CRD at rest, on the same samples and negatives at every call."""

    def __init__(self, student: list[Tensor], teacher: list[Tensor]) -> None:
        super().__init__()
        self.method = kd.CRD.from_sample(student, teacher, samples=20, width=6, negatives=5)
        self(student, teacher)  # finds its normaliser
        self.eval()

    def forward(self, student: list[Tensor], teacher: list[Tensor], **options) -> Tensor:
        batch = len(student[0]) if isinstance(student, list) and len(student) else 0
        index = torch.arange(batch)
        others = (index[:, None] * 3 + torch.arange(5) + 1) % 20
        return self.method(student, teacher, index, negatives=others, **options)


def prepared(method: kd.Distiller, teacher: list[Tensor], **options) -> kd.Distiller:
    method.prepare([[t.detach() for t in teacher]], **options)
    return method


CASES = [
    Case("SoftTarget", lambda s, t: OnTensors(kd.SoftTarget()), "logits"),
    Case("SoftTarget-standard", lambda s, t: OnTensors(kd.SoftTarget(standardise=True)), "logits"),
    Case("DKD", lambda s, t: Labelled(kd.DKD()), "logits"),
    Case("WSLD", lambda s, t: Labelled(kd.WSLD()), "logits"),
    Case("DIST", lambda s, t: OnTensors(kd.DIST()), "logits"),
    Case("SKDDirection", lambda s, t: OnTensors(kd.SKDDirection()), "logits"),
    Case("MLKD", lambda s, t: OnTensors(kd.MLKD()), "logits"),
    Case("TeacherAssistant", lambda s, t: OnTensors(kd.TeacherAssistant()), "logits"),
    Case("BornAgain", lambda s, t: OnTensors(kd.BornAgain()), "logits"),
    Case("DeepMutual", lambda s, t: Mutual(), "logits"),
    Case("OnTheFlyEnsemble", lambda s, t: Branches(), "logits"),
    Case("LearningWithoutForgetting", lambda s, t: kd.LearningWithoutForgetting(), "logits"),
    Case("VID", lambda s, t: kd.VID.from_sample(s, t)),
    Case("VID-LP", lambda s, t: kd.VID.from_sample(s, t), "logits"),
    Case("FactorTransfer", lambda s, t: prepared(kd.FactorTransfer.from_sample(s, t), t, epochs=2)),
    Case("RKD", lambda s, t: kd.RKD(), "vectors"),
    Case("CC", lambda s, t: kd.CC(), "vectors"),
    Case("CC-exact", lambda s, t: kd.CC(exact=True), "vectors"),
    Case("CC-bilinear", lambda s, t: kd.CC(kernel="bilinear")),
    Case("RSD", lambda s, t: kd.RSD.from_sample(s, t)),
    Case("IRG", lambda s, t: kd.IRG()),
    Case("DarkRank", lambda s, t: kd.DarkRank(), "vectors"),
    Case("CWD", lambda s, t: kd.CWD.from_sample(s, t)),
    Case("PKD", lambda s, t: kd.PKD.from_sample(s, t)),
    Case("SRD", lambda s, t: kd.SRD.from_sample(s, t)),
    Case("CATKD", lambda s, t: kd.CATKD()),
    Case("ReviewKD", lambda s, t: kd.ReviewKD.from_sample(s, t)),
    Case("CRD", lambda s, t: Remembering(s, t)),
    Case("KDSVD", lambda s, t: kd.KDSVD(k=2)),
    Case("KDSVD-projection", lambda s, t: kd.KDSVD(k=2, student_svd=False)),
    Case("MHGD", lambda s, t: prepared(kd.MHGD.from_sample(s, t), t, epochs=2)),
    Case("IEP", lambda s, t: prepared(kd.IEP.from_sample(s, t), t, epochs=2)),
    Case(
        "IEP-black-box",
        lambda s, t: prepared(kd.IEP.from_sample(s, t, black_box=True), t, epochs=2),
    ),
    Case("AttentionTransfer", lambda s, t: kd.AttentionTransfer()),
    Case("AttentionTransfer-paper", lambda s, t: kd.AttentionTransfer(variant="paper", p=3)),
    Case("FSP", lambda s, t: kd.FSP.from_sample(s, t)),
    Case("FSP-columns", lambda s, t: kd.FSP(variant="columns")),
    Case("NST-gaussian", lambda s, t: kd.NST(kernel="gaussian")),
    Case("GramAnchoring", lambda s, t: kd.GramAnchoring()),
    Case("GramAnchoring-batch", lambda s, t: kd.GramAnchoring("drop", per="batch")),
    Case("CKA", lambda s, t: kd.CKA()),
    Case("CKA-relations", lambda s, t: kd.CKA(centred=False, negative=True)),
    Case("ICKD", lambda s, t: kd.ICKD.from_sample(s, t)),
    Case("KTA", lambda s, t: kd.KTA()),
    Case("Procrustes", lambda s, t: kd.Procrustes()),
    Case("Subspace", lambda s, t: kd.Subspace(k=3)),
    Case("Overhaul", lambda s, t: prepared(kd.Overhaul.from_sample(s, t), t)),
    Case(
        "WeightedSum",
        lambda s, t: kd.WeightedSum(
            {"fit": kd.FitNet.from_sample(s, t), "vid": kd.VID.from_sample(s, t)}, {"vid": 0.5}
        ),
    ),
]


def usual(name: str) -> Case:
    """The case of a method that needs no line above, from what its class says."""
    method = getattr(kd, name)
    if method.takes[0] == "logits":
        return Case(name, lambda s, t: OnTensors(method()), "logits")
    inputs = "maps" if "map" in method.takes else "vectors"
    return Case(name, lambda s, t: prepared(method.from_sample(s, t), t), inputs)


CASES += [usual(name) for name in kd.__all__ if name not in {case.name for case in CASES}]
