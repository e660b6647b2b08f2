"""Every method on features of two to five dimensions: the value of the same map written with four,
or a refusal by name; never an error from inside torch, never another meaning."""

import pytest
import torch
from support.distiller_cases import CASES, leaf, maps, said

import kdops.distillers as kd

WRITTEN = {3: lambda x: x.flatten(2), 4: lambda x: x, 5: lambda x: x.unflatten(2, (2, -1))}
PLANES = {"FactorTransfer", "ReviewKD", "CATKD",  # 3x3 convolutions, pools to 2 x 2
          "OnTheFlyEnsemble"}  # logits of whole images  # fmt: skip
FOR_MAPS = {name for name in kd.__all__ if "embedding" not in getattr(kd, name).takes}
FOR_MAPS |= {"VID", "WeightedSum"}  # as the cases build them
MAPS = {c.name for c in CASES if c.inputs == "maps" and c.method in FOR_MAPS}  # no vectors


def four_dimensional(case, batch, seed):
    if case.inputs == "maps":  # these pool levels of different sizes, dimension by dimension
        pools = case.name.startswith(("FSP", "IRG"))
        return [x[:, :, :4, :4] if pools else x for x in maps(batch, seed)]
    return [leaf(batch, 24 if case.inputs == "vectors" else 10, 4, 4, seed=seed)]


def outcome(method, student, teacher):
    """Loss and gradients, or the text of a ValueError that starts with a method's name."""
    try:
        loss = method(student, teacher)
    except ValueError as error:
        text = str(error)
    else:
        return [loss, *torch.autograd.grad(loss, student)]
    assert text.partition(":")[0] in kd.__all__
    return text


def agree(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.flatten(), b.flatten(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("batch", [4, 8, 12])  # 8 and 12 are channels too
def test_ranks_three_to_five(case, batch):
    torch.manual_seed(0)
    student, teacher = four_dimensional(case, batch, 0), four_dimensional(case, batch, 50)
    if case.name == "OnTheFlyEnsemble":
        assert "expected logits (B, classes)" in outcome(
            case.build(student, teacher), student, teacher
        )
        return
    method = said(case.build(student, teacher), "channels")
    expected = outcome(method, student, teacher)
    for rank, write in WRITTEN.items():
        rewritten = [[write(x.detach()).requires_grad_() for x in f] for f in (student, teacher)]
        got = outcome(method, *rewritten)
        if rank != 4 and case.name in PLANES:
            assert "[B, C, H, W]" in got
        else:
            agree(got, expected)
        mixed = outcome(method, rewritten[0], teacher)
        if not isinstance(mixed, str):  # spectral and relational methods read positions as a set
            agree(mixed, expected)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("batch", [4, 8, 12])
def test_vectors(case, batch):
    """(B, C) is (B, C, 1, 1), or refused by a method whose knowledge lies in the positions."""
    torch.manual_seed(0)
    student, teacher = four_dimensional(case, batch, 0), four_dimensional(case, batch, 50)
    points = [[x.detach()[:, :, :1, :1].requires_grad_() for x in f] for f in (student, teacher)]
    vectors = [[x.detach()[:, :, 0, 0].requires_grad_() for x in f] for f in (student, teacher)]
    if case.name in MAPS | PLANES - {"OnTheFlyEnsemble"}:
        got = outcome(case.build(student, teacher), *vectors)
        assert isinstance(got, str)
        assert "maps" in got or "map of shape" in got
        return
    method = case.build(*vectors)
    got, expected = outcome(method, *vectors), outcome(method, *points)
    if case.name == "OnTheFlyEnsemble":
        assert not isinstance(got, str)
        assert "expected logits (B, classes)" in expected
    elif case.name == "VID-LP":
        assert "built for vectors" in expected
    else:
        agree(got, expected)


def test_preparation_names_what_it_reads():
    flat = [torch.randn(4, 8, 9)]
    for make in (kd.FactorTransfer, kd.MHGD, kd.IEP, kd.Overhaul):
        method, name = make([6, 6], [8, 8]), make.__name__
        method.layout = "channels"
        for wrong in ([torch.randn(4, 6, 3, 3)] * 2, flat, [torch.zeros(4, 8).long()] * 2):
            with pytest.raises(ValueError, match=rf"{name}\.prepare: "):
                method.prepare([wrong])
    with pytest.raises(ValueError, match=r"FactorTransfer: level 0: expected a teacher map"):
        kd.FactorTransfer([6], [8], layout="channels").prepare([flat])
    for make in (kd.MHGD, kd.IEP):
        with pytest.raises(ValueError, match=rf"{make.__name__}: level 0: expected maps"):
            make([6, 6], [8, 8]).prepare([[torch.randn(4, 8)] * 2])
        with pytest.raises(ValueError, match=f"{make.__name__}: needs at least 2 levels, got 1"):
            make([6], [8])
