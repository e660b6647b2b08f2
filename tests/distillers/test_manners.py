"""One call that prepares any method, and sentences for what users run into."""

import pytest
import torch
from support.distiller_cases import CASES, maps

import kdops.distillers as kd
from kdops.distillers._base import Distiller


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_one_call_prepares_every_method(case):
    student, teacher = case.features(), case.features(seed=50)
    method = case.build(student, teacher)
    for part in [m for m in method.modules() if isinstance(m, Distiller)]:
        part.prepare([[t.detach() for t in teacher]], epochs=1, lr=1e-3, progress=False)
    assert torch.isfinite(method(student, teacher))


def test_a_sum_prepares_its_terms():
    s, t = maps(), maps(seed=50)
    terms = {"ft": kd.FactorTransfer.from_sample(s, t), "ofd": kd.Overhaul.from_sample(s, t)}
    both = kd.WeightedSum({**terms, "nst": kd.NST()})
    batch = [x.detach() for x in t]
    found = both.prepare({"ft": [batch], "ofd": [batch]}, epochs=2, progress=False)
    assert len(found["ft"]) == 2
    assert set(found) == {"ft", "ofd"}
    assert torch.isfinite(both(s, t))
    assert set(both.prepare([batch], epochs=1, progress=False)) == {"ft", "ofd"}


@pytest.mark.parametrize("kind", [kd.MHGD, kd.IEP])
def test_a_batch_of_one_says_drop_last(kind):
    method = kind([6, 6], [8, 8])
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.prepare: a batch of one.*drop_last"):
        method.prepare([[torch.randn(1, 8, 3, 3)] * 2], epochs=1, progress=False)
