"""WeightedSum: named terms, coefficients, options, values for logging."""

import pytest
import torch
from support.distiller_cases import leaf

import kdops.distillers as kd


def test_terms_and_values():
    z_s, z_t, y = leaf(3, 5), leaf(3, 5, seed=1), torch.tensor([0, 1, 2])
    x_s, x_t = leaf(3, 6, seed=2), leaf(3, 6, seed=3)
    vid = kd.VID.from_sample(x_s, x_t)
    both = kd.WeightedSum({"kd": kd.SoftTarget(), "vid": vid}, {"vid": 0.25})
    loss = both({"kd": z_s, "vid": x_s}, {"kd": z_t, "vid": x_t}, kd={"target": y})
    kd_term, vid_term = kd.SoftTarget()(z_s, z_t, y), vid(x_s, x_t)
    torch.testing.assert_close(loss, kd_term + 0.25 * vid_term)
    torch.testing.assert_close(both.values["vid"], vid_term.detach())
    assert not both.values["kd"].requires_grad
    assert {n for n, _ in both.named_parameters()} == {
        f"methods.vid.{n}" for n, _ in vid.named_parameters()
    }


def test_same_features_for_all():
    z_s, z_t = leaf(3, 5), leaf(3, 5, seed=1)
    both = kd.WeightedSum({"a": kd.SoftTarget(), "b": kd.BornAgain()}, {"a": 2.0})
    torch.testing.assert_close(both(z_s, z_t), 3 * kd.SoftTarget()(z_s, z_t))


def test_messages():
    with pytest.raises(ValueError, match=r"coefficients for \['b'\]"):
        kd.WeightedSum({"a": kd.SoftTarget()}, {"b": 1.0})
    both = kd.WeightedSum({"a": kd.SoftTarget(), "b": kd.BornAgain()})
    z = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"the student mapping has \['a'\] and lacks \['b'\]"):
        both({"a": z}, z)
    with pytest.raises(ValueError, match="unknown terms"):
        both(z, z, c={})
