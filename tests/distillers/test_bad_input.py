"""Every method on what users pass by mistake: a ValueError that starts with a method's name, or a
defined value; nothing from inside torch, and nothing spoilt in the method."""

import copy
import pickle

import pytest
import torch
from support.distiller_cases import CASES, leaf
from torch import nn

import kdops.distillers as kd

INNER = {"OnTheFlyEnsemble", "DeepMutual", "SoftTarget", "TeacherAssistant", "BornAgain"}
WRAPPED = INNER | {"SoftTarget-standard", "DKD", "WSLD", "DIST", "MLKD", "SKDDirection"}
RAW = [c for c in CASES if c.name not in WRAPPED]  # called with lists as they are
raw_methods = pytest.mark.parametrize("case", RAW, ids=lambda c: c.name)
all_methods = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)

REFUSED = {
    "fewer levels": lambda s, t: (s, t[:-1]),
    "no levels": lambda s, t: ([], []),
    "None": lambda s, t: (None, t),
    "text": lambda s, t: (s, "layer1"),
    "a set": lambda s, t: ({1, 2}, t),
    "numbers": lambda s, t: (s, [1.0] * len(t)),
    "integers": lambda s, t: ([x.detach().long() for x in s], t),
    "complex": lambda s, t: (s, [x.detach().to(torch.complex64) for x in t]),
    "another batch": lambda s, t: (s, [x[:3] for x in t]),
    "one dimension": lambda s, t: ([x.flatten() for x in s], [x.flatten() for x in t]),
    "no channels": lambda s, t: ([x[:, :0] for x in s], [x[:, :0] for x in t]),
    "another device": lambda s, t: (s, [x.to("meta") for x in t]),
}


def build(case, batch=4):
    torch.manual_seed(0)
    student = case.features(batch, 0, torch.float32)
    teacher = case.features(batch, 50, torch.float32)
    return case.build(student, teacher).float(), student, teacher


def refused(method, student, teacher):
    with pytest.raises(ValueError) as caught:
        method(student, teacher)
    assert str(caught.value).partition(":")[0] in kd.__all__, caught.value


@raw_methods
def test_refused_by_name(case):
    method, student, teacher = build(case)
    for change in REFUSED.values():
        refused(method, *change(student, teacher))
    for side in (0, 1):
        both = [student, teacher]
        both[side] = [x[:, :3] for x in both[side]]
        if getattr(kd, case.method).channels_rule == "any":
            assert torch.isfinite(method(*both))
        else:
            refused(method, *both)


@pytest.mark.parametrize("name", sorted(INNER - {"OnTheFlyEnsemble", "DeepMutual"}))
def test_logits(name):
    z, method = leaf(4, 10, dtype=torch.float32), getattr(kd, name)()
    for wrong in (None, z[:3], z[:, :9], z.long(), z.flatten(), z.to("meta")):
        refused(method, z, wrong)
    for target in (torch.zeros(3).long(), torch.zeros(4), torch.zeros(4, 1).long(), z[:, :3],
                   torch.zeros(4).long().to("meta")):  # fmt: skip
        with pytest.raises(ValueError, match=rf"{name}: .*target"):
            method(z, z, target)
    by_class = method(z, z, torch.arange(4))
    torch.testing.assert_close(
        by_class, method(z, z, nn.functional.one_hot(torch.arange(4), 10).float())
    )
    assert method(z[:0], z[:0], torch.zeros(0).long()) == 0


def test_networks_that_teach_each_other():
    z = leaf(4, 10, dtype=torch.float32)
    one = kd.OnTheFlyEnsemble(6, 2)
    trunk = torch.zeros(4, 6)
    for logits, shared in [((z, z), trunk[:, :5]), ((z, z), trunk[:3]), (z, trunk),
                           ((z, z[:, :9]), trunk), ((z, z), None)]:  # fmt: skip
        with pytest.raises(ValueError, match="OnTheFlyEnsemble: "):
            one(logits, shared)
    for logits in (z, [z], [z, z[:3]], [z, None]):
        with pytest.raises(ValueError, match="DeepMutual: "):
            kd.DeepMutual()(logits)


@all_methods
def test_types_follow_the_student(case):
    """A teacher of another type gives the value; a double student a double loss, or a refusal."""
    method, student, teacher = build(case)
    expected = method(student, teacher)
    for dtype in (torch.float16, torch.float64):
        loss = method(student, [t.to(dtype) for t in teacher])
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected, rtol=2e-2, atol=1e-4)
    double = [x.double() for x in student]
    if case.name in ("MHGD", "IEP", "IEP-black-box"):
        refused(method, double, teacher)
    else:
        assert method(double, teacher).dtype == torch.float64


@all_methods
def test_one_sample_and_none(case):
    """An empty batch costs nothing and spoils nothing; a batch of one has a value or a remedy."""
    method, student, teacher = build(case)
    before = copy.deepcopy(method.state_dict())
    empty = [x.detach()[:0].requires_grad_() for x in student]
    loss = method(empty, [t[:0] for t in teacher])
    assert loss == 0
    loss.backward()
    assert all(x.grad.shape == x.shape for x in empty)
    for name, x in method.state_dict().items():
        assert torch.equal(x, before[name]) or "num_batches" in name
    if case.name == "OnTheFlyEnsemble":
        with pytest.raises(ValueError, match=r"OnTheFlyEnsemble: .*drop_last=True"):
            method([x[:1] for x in student], [t[:1] for t in teacher])
    else:
        assert torch.isfinite(method([x[:1] for x in student], [t[:1] for t in teacher]))


def test_batch_norm_asks_for_more_than_one_value():
    s, t = torch.randn(1, 6, 1, 1), torch.randn(1, 8, 1, 1)
    for method in (kd.FitNet((6, 1, 1), (8, 1, 1)), kd.ActivationBoundary([6], [8])):
        with pytest.raises(ValueError, match=rf"{method.name}: level 0: one value.*drop_last=True"):
            method([s], [t])
        assert torch.isfinite(method.eval()([s], [t]))


# relations between samples, and BatchNorm
MIXING = {"RKD", "SimilarityPreserving", "MHGD", "IEP", "IEP-black-box", "OnTheFlyEnsemble",
          "FitNet", "ActivationBoundary", "Overhaul", "WeightedSum", "DIST", "MLKD",
          "SKDDirection", "CC", "CC-exact", "CC-bilinear", "RSD", "IRG", "DarkRank",
          "PKD", "PKT", "SRD", "ReviewKD", "CKA", "CKA-relations", "Procrustes",
          "GramAnchoring-batch"}  # fmt: skip


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in MIXING], ids=lambda c: c.name)
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_nan_stays_in_its_sample(case, side):
    method, student, teacher = build(case)
    clean = torch.autograd.grad(method(student, teacher), student)
    spoilt = [x.detach().clone() for x in (student if side == "student" else teacher)]
    spoilt[0][1].flatten()[0] = float("nan")
    spoilt = [x.requires_grad_() for x in spoilt]
    s, t = (spoilt, teacher) if side == "student" else (student, spoilt)
    loss = method(s, t)
    assert loss.isnan()
    for grad, good in zip(torch.autograd.grad(loss, s), clean, strict=True):
        torch.testing.assert_close(grad[[0, 2, 3]], good[[0, 2, 3]])


@all_methods
@pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(case, twin):
    """A copy has the value, and its training leaves the original alone."""
    method, student, teacher = build(case)
    other = twin(method)
    loss = method(student, teacher)
    torch.testing.assert_close(other(student, teacher), loss, rtol=0, atol=0)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1.0)
    assert other.state_dict().keys() == method.state_dict().keys()
    torch.testing.assert_close(method(student, teacher), loss, rtol=0, atol=0)
