"""torchdistill's own losses against ours: what docs/migration.md calls the same is the same."""

import pytest
import torch
from support.distiller_cases import leaf, same_loss_and_gradient

import kdops.distillers as kd

pytest.importorskip("torchdistill")

from torchdistill.losses import mid_level as zoo

from kdops.integrations.torchdistill import KdopsLoss

PLACE = ("m", "output", "m", "output")
LABELS = torch.arange(9) % 5


@pytest.fixture(autouse=True)
def _double():
    """Some of theirs make an identity matrix of the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def out(x):
    return {"m": {"output": x}}


def logits():
    return leaf(9, 5), leaf(9, 5, seed=1)


@pytest.mark.parametrize(
    ("theirs", "ours", "factor"),
    [
        (lambda: zoo.KDLoss(*PLACE, 4.0, alpha=0.3), kd.SoftTarget(4.0, alpha=0.7), 1),
        (lambda: zoo.KDLoss(*PLACE, 4.0, alpha=0.0), kd.SoftTarget(4.0), 16),  # without T²
        (
            lambda: zoo.LogitStdKDLoss(*PLACE, 2.0, alpha=0.0),
            kd.SoftTarget(standardise=True),
            4,
        ),
        (lambda: zoo.DISTLoss(*PLACE, tau=4.0), kd.DIST(), 1),
        (
            lambda: zoo.DISTLoss(*PLACE, beta=2.0, gamma=0.5),
            kd.DIST(1.0, inter_weight=2.0, intra_weight=0.5),
            1,
        ),
        (lambda: zoo.SKDDirectionLoss(*PLACE), kd.SKDDirection(), 1),
    ],
)
def test_logits(theirs, ours, factor):
    s, t = logits()
    target = [LABELS] if isinstance(ours, kd.SoftTarget) and factor == 1 else []
    expected = factor * theirs()(out(s), out(t.detach()), *target)
    same_loss_and_gradient(ours(s, t, *target), expected, [s])


def test_targets_reach_our_methods():
    s, t = logits()
    found = KdopsLoss("DKD")({".": out(s)["m"]}, {".": out(t)["m"]}, LABELS)
    torch.testing.assert_close(found, kd.DKD()(s, t, LABELS))


def test_the_projector():
    """SRD: twice the log term plus KL, on features that are projected and normalised."""
    s, t, z_s, z_t = leaf(9, 4), leaf(9, 6, seed=1), *logits()
    both = kd.recipe("srd", s, t)
    method = both.methods["srd"]
    f_s = method.projectors[0](s)
    f_t = method.norms[0](t.detach())
    theirs = zoo.SRDLoss("f", "output", "f", "output", "m", "output", "m", "output", exponent=4.0)
    expected = theirs({"f": {"output": f_s}, **out(z_s)}, {"f": {"output": f_t}, **out(z_t)})
    loss = both({"kd": z_s, "srd": s}, {"kd": z_t, "srd": t})
    same_loss_and_gradient(loss, expected, [s, z_s])


def pairs(theirs, count):
    """Their configuration of count pairs of layers named 0, 1, ..."""
    sides = {"student": {"io": "output", "path": ""}, "teacher": {"io": "output", "path": ""}}
    return theirs(
        {str(i): {k: {**v, "path": str(i)} for k, v in sides.items()} for i in range(count)}
    )


def outs(maps):
    return {str(i): {"output": x} for i, x in enumerate(maps)}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda p: zoo.ATLoss(p, "code"), kd.AttentionTransfer(beta=1)),
        (lambda p: zoo.ATLoss(p, "paper"), kd.AttentionTransfer(beta=2, variant="paper")),
        (
            lambda p: zoo.AltActTransferLoss(p, 1.0, "mean"),
            kd.ActivationBoundary(connector=None, scale=1, weights=[1, 1]),
        ),
        (zoo.ChSimLoss, kd.ICKD()),
    ],
)
def test_maps(theirs, ours):
    s = [leaf(3, 4, 5, 5), leaf(3, 6, 2, 3, seed=1)]
    t = [leaf(3, 4, 5, 5, seed=2), leaf(3, 6, 2, 3, seed=3)]
    expected = pairs(theirs, 2)(outs(s), outs([x.detach() for x in t]))
    same_loss_and_gradient(ours(s, t), expected, s)


def test_affinities():
    s, t = leaf(3, 4, 5, 5), leaf(3, 4, 5, 5, seed=2)
    theirs = zoo.AffinityLoss("m", "m")(out(s), out(t.detach()))
    same_loss_and_gradient(kd.KTA()(s, t), theirs, [s], tol=1e-8)


def test_relations():
    s, t = leaf(7, 4), leaf(7, 5, seed=1)
    theirs = zoo.PKTLoss(*PLACE)(out(1.0 * s), out(1.0 * t.detach()))
    same_loss_and_gradient(kd.PKT()(s, t), theirs, [s], tol=1e-8)
    theirs = zoo.RKDLoss("m", "m", 25, 50, "mean")
    same_loss_and_gradient(kd.RKD()(s, t), theirs(out(s), out(t.detach())), [s], tol=1e-8)
    s, t = (
        [leaf(3, 4, 6, 6), leaf(3, 5, 3, 3, seed=1)],
        [leaf(3, 4, 6, 6, seed=2), leaf(3, 5, 3, 3)],
    )
    first, second = ({"io": "output", "path": str(i)} for i in range(2))
    theirs = zoo.FSPLoss({"one": {"student_first": first, "student_second": second,
                                  "teacher_first": first, "teacher_second": second}})  # fmt: skip
    expected = theirs(outs(s), outs([x.detach() for x in t]))
    same_loss_and_gradient(kd.FSP(variant="columns")(s, t), expected, s)
