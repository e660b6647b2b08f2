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


def prepared(method: kd.Distiller, teacher: list[Tensor], **options) -> kd.Distiller:
    method.prepare([[t.detach() for t in teacher]], **options)
    return method


CASES = [
    Case("SoftTarget", lambda s, t: OnTensors(kd.SoftTarget()), "logits"),
    Case("TeacherAssistant", lambda s, t: OnTensors(kd.TeacherAssistant()), "logits"),
    Case("BornAgain", lambda s, t: OnTensors(kd.BornAgain()), "logits"),
    Case("DeepMutual", lambda s, t: Mutual(), "logits"),
    Case("OnTheFlyEnsemble", lambda s, t: Branches(), "logits"),
    Case("LearningWithoutForgetting", lambda s, t: kd.LearningWithoutForgetting(), "logits"),
    Case("FitNet", lambda s, t: kd.FitNet.from_sample(s, t)),
    Case("ActivationBoundary", lambda s, t: kd.ActivationBoundary.from_sample(s, t)),
    Case("VID", lambda s, t: kd.VID.from_sample(s, t)),
    Case("VID-LP", lambda s, t: kd.VID.from_sample(s, t), "logits"),
    Case("FactorTransfer", lambda s, t: prepared(kd.FactorTransfer.from_sample(s, t), t, epochs=2)),
    Case("RKD", lambda s, t: kd.RKD(), "vectors"),
    Case("SimilarityPreserving", lambda s, t: kd.SimilarityPreserving()),
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
    Case("NST", lambda s, t: kd.NST()),
    Case("NST-gaussian", lambda s, t: kd.NST(kernel="gaussian")),
    Case("Overhaul", lambda s, t: prepared(kd.Overhaul.from_sample(s, t), t)),
    Case(
        "WeightedSum",
        lambda s, t: kd.WeightedSum(
            {"fit": kd.FitNet.from_sample(s, t), "vid": kd.VID.from_sample(s, t)}, {"vid": 0.5}
        ),
    ),
]
