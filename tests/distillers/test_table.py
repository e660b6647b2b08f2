"""docs/methods.md says what the classes say, and the methods do what the classes say."""

from pathlib import Path

import pytest
import torch
from support.distiller_cases import CASES, leaf, maps, said

import kdops.distillers as kd

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
METHODS = [getattr(kd, name) for name in kd.__all__]
KINDS = {
    "embedding": lambda d, i: leaf(4, d, seed=i),
    "map": lambda d, i: leaf(4, d, 4, 4, seed=i),
    "tokens": lambda d, i: leaf(4, 16, d, seed=i),
}
OF_CASE = {c.name: c for c in CASES if c.name in kd.__all__}


def test_the_page_is_generated():
    page = PAGE.read_text()
    found = page.partition("<!-- table:begin -->\n")[2].partition("\n<!-- table:end -->")[0]
    assert found == kd.table(), "kdops.distillers.table() is newer: make methods"


def features(case, kind, seed):
    widths = (8, 12, 12) if case.inputs == "maps" else (10,)
    return [KINDS[kind](d, seed + i) for i, d in enumerate(widths)]


def _sample(x, kind):
    """What the method is built from: all kinds but embeddings have positions."""
    return x if kind == "embedding" else leaf(4, x.shape[2 if kind == "tokens" else 1], 4, 4)


@pytest.mark.parametrize("name", sorted(set(OF_CASE) - {"OnTheFlyEnsemble", "WeightedSum"}))
@pytest.mark.parametrize("kind", KINDS)
def test_inputs(name, kind):
    """A loss for what the class takes, else a ValueError by the method's name."""
    case, method = OF_CASE[name], getattr(kd, name)
    student, teacher = features(case, kind, 0), features(case, kind, 50)
    sample = [[_sample(x, kind) for x in f] for f in (student, teacher)]

    def run():
        return said(case.build(*sample), "tokens")(student, teacher)

    logits = kind == "embedding" and "logits" in method.takes
    if kind in method.takes or logits:
        loss = run()
        assert torch.isfinite(loss)
        assert any(g.abs().max() > 0 for g in torch.autograd.grad(loss, student))
    else:
        with pytest.raises(ValueError, match=rf"^{name}(\.prepare)?: "):
            run()


def outcome(build, student, teacher):
    """Whether it gives a loss; an error without the method's name is neither."""
    try:
        return bool(torch.isfinite(build()(student, teacher)))
    except ValueError as error:
        return False if str(error).partition(":")[0] in kd.__all__ else error


def prepared(method, teacher):
    if isinstance(method, kd._prepared.PreparedDistiller):
        method.prepare([teacher])
    return method


SPECIAL = {"WeightedSum", "CRD"}  # made of other methods; called with indices
MAPS = sorted(n for n, c in OF_CASE.items() if c.inputs == "maps" and n not in SPECIAL)


@pytest.mark.parametrize("name", MAPS)
def test_channels(name):
    method = getattr(kd, name)
    s, t = maps(), [torch.cat([x, x], 1).detach() for x in maps(seed=9)]
    connected = outcome(lambda: prepared(method.from_sample(s, t), t), s, t)
    assert connected == (not method.channels_rule.endswith("equal"))
    if method.channels_rule != "connector":
        assert outcome(lambda: method(), s, t) == (method.channels_rule == "any")


@pytest.mark.parametrize("name", MAPS)
def test_positions(name):
    method = getattr(kd, name)
    s, t = maps(), [x.detach()[:, :, :3, :3] for x in maps(seed=9)]
    works = outcome(lambda: prepared(method.from_sample(s, t), t), s, t)
    assert works == (method.positions_rule in ("any", "pooled", "regressor", "resized"))


def test_every_class_says_all():
    for method in METHODS:
        assert set(method.takes) <= {*KINDS, "logits", "pairs"}
        assert method.padding in ("zeros", "valid", "")
        assert method.paper or method is kd.WeightedSum
