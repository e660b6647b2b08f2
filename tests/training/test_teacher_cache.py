"""TeacherCache: what a fixed teacher says of every sample."""

from pathlib import Path

import pytest
import torch
from support.cached_teacher import LAYERS, Images, Named, filled, loader, network
from torch import nn
from torch.utils.data import DataLoader

from kdops import FeatureTap
from kdops.distillers import KDSVD, SoftTarget, WeightedSum
from kdops.training import Indexed, TeacherCache, fit


@pytest.fixture
def teacher():
    return network(6, 0)


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_values_in_any_order(teacher, tmp_path, dtype):
    data = Images()
    cache = filled(tmp_path / "a" / "b", teacher.train(), data, dtype=dtype)
    assert teacher.training
    index = torch.tensor([7, 0, 9, 7])
    with FeatureTap(teacher, LAYERS) as tap, torch.no_grad():
        logits = teacher(data.x[index])
        theirs = [*tap.features, logits]
    for again in (cache, TeacherCache(tmp_path / "a" / "b", teacher, LAYERS, dtype=dtype)):
        found = [*again.features(index), again.logits(index.tolist())]
        for x, y in zip(found, theirs, strict=True):
            assert x.dtype == (dtype or torch.float32)
            torch.testing.assert_close(
                x, y.to(x.dtype), atol=1e-6 if dtype is None else 4e-3, rtol=1e-2
            )
    with pytest.raises(IndexError, match="indices from 3 to 10 of 10 samples"):
        cache.features([3, 10])


def test_tokens_are_cut_when_read(tmp_path):
    """One cache of tokens serves any layout, prefix and grid, as a tap gives them."""
    teacher = nn.Sequential(nn.Flatten(2), nn.Linear(36, 5), nn.Identity())  # (B, 3, 5)
    data = Images()
    options = {"layout": "tokens", "prefix": 1, "grid": (1, 2)}
    filled(tmp_path, teacher, data, ["2"], logits=False)
    for chosen in ({}, {"layout": "tokens"}, options):
        cache = TeacherCache(tmp_path, teacher, ["2"], logits=False, **chosen)
        with FeatureTap(teacher, ["2"], **chosen) as tap, torch.no_grad():
            teacher(data.x)
            [x], [y] = cache.features(range(10)), tap.features
        torch.testing.assert_close(x, y)
        assert getattr(x, "_kdops_layout", None) == getattr(y, "_kdops_layout", None)
        assert cache.logits(range(10)) is None


@pytest.mark.parametrize("kind", [Images, Named])
def test_the_same_curve_with_and_without(teacher, tmp_path, kind):
    """Features and logits, shuffled batches of another size, in both forms of a batch."""
    if kind is Named:
        teacher.forward = lambda input: nn.Sequential.forward(teacher, input)
    data = Indexed(kind())
    cache = TeacherCache(tmp_path, teacher, LAYERS)
    curves = []
    for known in (teacher, cache):
        student = network(6, 1)
        if kind is Named:
            student.forward = lambda input, net=student: nn.Sequential.forward(net, input)
        torch.manual_seed(2)
        if known is cache:
            cache.fill(loader(data), progress=False)
        method = WeightedSum({"kd": SoftTarget(), "svd": KDSVD()})
        rows = fit(student, known, method, loader(data, batch_size=3, shuffle=True), epochs=3,
                   layers=(LAYERS, LAYERS), progress=False)  # fmt: skip
        curves.append([(row["loss"], row["distill"]) for row in rows])
    torch.testing.assert_close(torch.tensor(curves[1]), torch.tensor(curves[0]))
    assert curves[0][0] != curves[0][-1]


def test_half_logits_alone(teacher, tmp_path):
    """Without layers the method gets the logits of the cache, whatever they are stored in."""
    data = Indexed(Images())
    cache = filled(tmp_path, teacher, data, (), dtype=torch.float16)
    rows = [
        fit(network(5, 1), known, SoftTarget(), loader(data), epochs=1, progress=False)[0][
            "distill"
        ]
        for known in (teacher, cache)
    ]
    assert rows[0] != rows[1]
    assert rows[0] == pytest.approx(rows[1], rel=1e-2)


def test_an_interrupted_fill_goes_on(teacher, tmp_path):
    """What was done is kept and not run again, the rest is refused until it is there."""
    data, calls = Images(), []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    handle = teacher.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path, teacher, data)
    cache = TeacherCache(tmp_path, teacher, LAYERS)
    cache.features(range(8))
    with pytest.raises(ValueError, match="sample 9 is not filled"):
        cache.features([0, 9, 8])
    with pytest.raises(ValueError, match="2 of 10 samples are not filled"):
        cache.check(loader(Indexed(data)))
    cache.fill(loader(data), progress=False)
    assert len(calls) == 4
    cache.fill(loader(data, drop_last=True, shuffle=True), progress=False)
    assert len(calls) == 4
    handle.remove()
    whole = filled(tmp_path / "whole", teacher, data)
    for x, y in zip(cache.features(range(10)), whole.features(range(10)), strict=True):
        assert torch.equal(x, y)


def test_lengths_that_differ(tmp_path):
    teacher, data = nn.Sequential(nn.Identity()), [(torch.zeros(2, n), 0) for n in (3, 3, 4, 4)]
    cache = TeacherCache(tmp_path, teacher, "0", allow_random=True)
    with pytest.raises(
        ValueError, match=r"'0' is \[2, 2, 4\].*samples of shape \[2, 3\].*one shape"
    ):
        cache.fill(loader(data, batch_size=2), progress=False)


def test_filling_leaves_the_seed_alone(teacher, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    filled(tmp_path, teacher, Images())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_example_of_the_page(teacher, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    code = page.partition("read from a cache")[2].partition("```python\n")[2].partition("```")[0]
    names = {"teacher": teacher, "student": network(6, 1), "dataset": Images(), "method": KDSVD()}
    layers = {"student_names": LAYERS, "teacher_names": LAYERS}
    monkeypatch.chdir(tmp_path)
    exec(
        code.replace("epochs=100", "epochs=1"),
        {**names, **layers, "torch": torch, "DataLoader": DataLoader},
    )
    assert TeacherCache("cache", teacher, LAYERS, dtype=torch.float16).logits([9]).isfinite().all()


def test_one_layer_at_two_places(teacher, tmp_path):
    options = {"layers": ["2", "2"], "at": ("input", "output")}
    cache = filled(tmp_path, teacher, Images(), **options)
    found = TeacherCache(tmp_path, teacher, **options).features([0])
    assert [list(x.shape) for x in found] == [[1, 6, 4, 4], [1, 6, 2, 2]]
    assert list(cache.logits([0]).shape) == [1, 4]
