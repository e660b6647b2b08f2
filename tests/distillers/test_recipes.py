"""recipe(name): the weights of the zoos' scripts, and a WeightedSum that fit can train."""

from pathlib import Path

import pytest
import torch
from support.distiller_cases import leaf, maps

import kdops.distillers as kd
from kdops.distillers._recipes import RECIPES

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
LOGITS = {name for name, known in RECIPES.items() if "logits" in getattr(kd, known.method).takes}
NEEDS = {"crd": {"samples": 20}}


def test_the_page_is_generated_from_them():
    page = PAGE.read_text()
    found = page.partition("<!-- recipes:begin -->\n")[2].partition("\n<!-- recipes:end -->")[0]
    assert found == kd.recipes(), "kdops.distillers.recipes() is newer"


def features(name):
    student, teacher = maps(), [x.detach() for x in maps(seed=50)]
    if name in LOGITS - {"vid"}:
        return student[-1].mean((2, 3)), teacher[-1].mean((2, 3))
    return student, teacher


@pytest.mark.parametrize("name", RECIPES)
def test_value(name):
    """The terms by themselves, with the weights of the table."""
    known = RECIPES[name]
    s, t = features(name)
    z_s, z_t = leaf(4, 10), leaf(4, 10, seed=1)
    x_s, x_t = (z_s, z_t) if name in LOGITS - {"vid"} else (s, t)
    torch.manual_seed(0)
    both = kd.recipe(name, s, t, **NEEDS.get(name, {}))
    method = both.methods[name]
    if name == "ofd":
        both.prepare([t], epochs=1, progress=False)
    options = both.batch_options({"target": torch.arange(4), "index": torch.arange(4)}.get)
    if name == "crd":
        options["crd"]["negatives"] = torch.zeros(4, 2).long()
        both.eval()
    loss = both({"kd": z_s, name: x_s}, {"kd": z_t, name: x_t}, **options)
    expected = known.weight * method(x_s, x_t, **options.get(name, {}))
    if known.kd:
        expected = expected + known.kd * kd.SoftTarget(known.temperature)(z_s, z_t)
    torch.testing.assert_close(loss, expected)
    assert set(both.methods) == ({"kd", name} if known.kd else {name})


def test_weights_of_the_scripts():
    """Against the published losses, where their weights lie within ours."""
    z_s, z_t = leaf(4, 10), leaf(4, 10, seed=1)
    x_s, x_t = leaf(4, 6, seed=2), leaf(4, 7, seed=3)
    kl = 16 * torch.nn.functional.kl_div(
        torch.log_softmax(z_s / 4, 1), torch.softmax(z_t / 4, 1), reduction="batchmean"
    )
    ours = kd.recipe("rkd")({"kd": z_s, "rkd": x_s}, {"kd": z_t, "rkd": x_t})
    torch.testing.assert_close(ours, kl + kd.RKD(25, 50)(x_s, x_t))
    ours = kd.recipe("sp")({"kd": z_s, "sp": x_s}, {"kd": z_t, "sp": x_t})
    torch.testing.assert_close(ours, kl + 3000 * kd.SimilarityPreserving(1.0)(x_s, x_t))
    alone = kd.recipe("sp", kd=0, weight=2)
    torch.testing.assert_close(alone(x_s, x_t), 2 * kd.SimilarityPreserving()(x_s, x_t))
    assert not [n for n in alone.methods if n == "kd"]


def test_options_and_layout():
    s, t = leaf(4, 9, 8), leaf(4, 9, 8, seed=1)
    both = kd.recipe("kdsvd", layout="tokens", k=2, kd=0)
    torch.testing.assert_close(both([s, s], [t, t]), kd.KDSVD(k=2, layout="tokens")([s, s], [t, t]))
    assert kd.recipe("dkd", beta=2.0).methods["dkd"].beta == 2.0


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("rdk", "rkd"), ("FitNets", "fitnet"), ("review", "reviewkd"), ("Overhaul", "ofd"),
     ("SimilarityPreserving", "sp")],
)  # fmt: skip
def test_did_you_mean(typed, meant):
    with pytest.raises(
        ValueError, match=rf"recipe: unknown name '{typed}'; did you mean .*'{meant}'"
    ):
        kd.recipe(typed)
    with pytest.raises(ValueError, match=r"recipe: unknown name 'zzzz'; there are ab, at"):
        kd.recipe("zzzz")


def test_what_is_missing():
    with pytest.raises(ValueError, match=r"recipe: 'vid' \(VID\): .*student_channels.*one batch"):
        kd.recipe("vid")
    with pytest.raises(ValueError, match="recipe: 'vid': give student and teacher features"):
        kd.recipe("vid", leaf(4, 6))
    with pytest.raises(ValueError, match=r"recipe: 'crd' \(CRD\): .*samples"):
        kd.recipe("crd", leaf(4, 6), leaf(4, 6))
    with pytest.raises(ValueError, match=r"recipe: 'rkd' \(RKD\): .*bandwidth"):
        kd.recipe("rkd", bandwidth=1)
