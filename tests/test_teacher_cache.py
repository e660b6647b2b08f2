"""TeacherCache: what a fixed teacher says of every sample, and all that must not fit to it."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from kdops import FeatureTap
from kdops.distillers import KDSVD, SimilarityPreserving, SoftTarget, WeightedSum
from kdops.training import Indexed, TeacherCache, fit

LAYERS = ["1", "3"]


class Images(Dataset):
    """Ten images of noise; noisy: other noise at every reading."""

    def __init__(self, count=10, seed=0, noisy=False):
        g = torch.Generator().manual_seed(seed)
        self.x = torch.randn(count, 3, 6, 6, generator=g)
        self.y = torch.randint(0, 4, (count,), generator=g)
        self.noisy, self.read = noisy, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.read.append(i)
        return self.x[i] + (torch.randn(()) if self.noisy else 0), self.y[i]


class Named(Images):
    """Batches that are dicts."""

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return {"input": x, "labels": y}


def network(width, seed):
    torch.manual_seed(seed)
    convolutions = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(4 * width, 4))


@pytest.fixture
def teacher():
    return network(6, 0)


def loader(dataset, **options):
    return DataLoader(dataset, **{"batch_size": 4, **options})


def filled(path, teacher, dataset, layers=LAYERS, **options):
    cache = TeacherCache(path, teacher, layers, **options)
    return cache.fill(loader(dataset), progress=False)


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


def test_random_inputs_are_refused(teacher, tmp_path):
    with pytest.raises(ValueError, match=r"^TeacherCache: the dataset's inputs change.*augment"):
        filled(tmp_path, teacher, Images(noisy=True))
    assert not list(tmp_path.iterdir())
    filled(tmp_path, teacher, Images())
    train = loader(Indexed(Images(noisy=True)))
    with pytest.raises(ValueError, match="inputs change from one reading to the next"):
        fit(network(6, 1), TeacherCache(tmp_path, teacher, LAYERS), KDSVD(), train, epochs=1,
            layers=(LAYERS, LAYERS), progress=False)  # fmt: skip


def test_random_inputs_that_are_allowed(teacher, tmp_path):
    data = Indexed(Images(noisy=True))
    cache = filled(tmp_path, teacher, data, allow_random=True)
    [row] = fit(network(6, 1), cache, KDSVD(), loader(data), epochs=1, layers=(LAYERS, LAYERS),
                progress=False)  # fmt: skip
    assert row["distill"] > 0


def test_noise_of_a_collate_function_is_seen(teacher, tmp_path):
    def mixed(items):
        x, y = torch.utils.data.default_collate(items)
        return x + torch.randn(()), y

    with pytest.raises(ValueError, match="random"):
        TeacherCache(tmp_path, teacher, LAYERS).fill(loader(Images(), collate_fn=mixed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": network(6, 1)}, "a teacher of other weights"),
        ({"layers": ["3", "1"]}, r"other layers: it has \['1', '3'\], this is \['3', '1'\]"),
        ({"dtype": torch.float16}, "another dtype: it has 'its own', this is 'float16'"),
        ({"at": "input"}, "another `at`"),
        ({"logits": False}, "another `logits`"),
    ],
)
def test_a_cache_of_something_else(teacher, tmp_path, change, message):
    filled(tmp_path, teacher, Images())
    options = {"teacher": teacher, "layers": LAYERS, **change}
    with pytest.raises(ValueError, match=f"was made of {message}.*move it away"):
        TeacherCache(tmp_path, **options)


def test_a_teacher_that_learned_since(teacher, tmp_path):
    data = Indexed(Images())
    cache = filled(tmp_path, teacher, data)
    with torch.no_grad():
        teacher[0].bias += 1
    with pytest.raises(ValueError, match="a teacher of other weights"):
        fit(network(6, 1), cache, KDSVD(), loader(data), epochs=1, layers=(LAYERS, LAYERS))


@pytest.mark.parametrize(
    ("data", "what"), [(Images(9), "other length"), (Images(seed=1), "inputs")]
)
def test_another_dataset(teacher, tmp_path, data, what):
    cache = filled(tmp_path, teacher, Images())
    with pytest.raises(ValueError, match=f"was made of .*{what}"):
        cache.check(loader(Indexed(data)))
    with pytest.raises(ValueError, match=f"was made of .*{what}"):
        cache.fill(loader(data))


def test_what_fit_needs_of_the_loader(teacher, tmp_path):
    data, cache = Images(), TeacherCache(tmp_path, teacher, LAYERS)
    options = {"epochs": 1, "progress": False}
    with pytest.raises(ValueError, match="10 of 10 samples are not filled"):
        fit(network(6, 1), cache, KDSVD(), loader(Indexed(data)), **options)
    with pytest.raises(ValueError, match=r"is empty: call fill\(loader\)"):
        cache.features([0])
    cache.fill(loader(data), progress=False)
    for wrong, message in (
        (loader(data), r"DataLoader\(Indexed\(dataset\), \.\.\.\)"),
        ([(data.x, data.y)], "expected a DataLoader that makes batches.*got list"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(network(6, 1), cache, KDSVD(), wrong, layers=(LAYERS, LAYERS), **options)
    lost = loader(Indexed(data), collate_fn=lambda b: torch.utils.data.default_collate(b)[:2])
    with pytest.raises(ValueError, match="does not say which samples"):
        fit(network(6, 1), cache, KDSVD(), lost, layers=(LAYERS, LAYERS), **options)
    with pytest.raises(ValueError, match=r"holds the layers \['1', '3'\], fit asks for \['3'\]"):
        fit(network(6, 1), cache, KDSVD(), loader(Indexed(data)), layers=(["3"], ["3"]), **options)
    with pytest.raises(ValueError, match="expected items"):
        Indexed([torch.zeros(2)])[0]


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


def test_files_that_were_damaged(teacher, tmp_path):
    filled(tmp_path, teacher, Images())
    file = tmp_path / "1.bin"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"1\.bin has 956 bytes, expected 960"):
        TeacherCache(tmp_path, teacher, LAYERS)
    for text in ("{", "[]", json.dumps({"layers": LAYERS})):
        (tmp_path / "header.json").write_text(text)
        with pytest.raises(ValueError, match=r"header\.json is no header of a cache"):
            TeacherCache(tmp_path, teacher, LAYERS)


def test_a_cache_that_may_not_be_written(teacher, tmp_path, monkeypatch):
    cache = filled(tmp_path, teacher, Images())
    monkeypatch.setattr("os.access", lambda *_: False)
    again = TeacherCache(tmp_path, teacher, LAYERS)
    assert torch.equal(again.features([3])[0], cache.features([3])[0])


def test_what_cannot_be_stored(teacher, tmp_path):
    data = Images()
    data.x *= 1e6
    with pytest.raises(ValueError, match=r"'1' has values up to .*e\+06, which torch.float16 cann"):
        filled(tmp_path, teacher, data, dtype=torch.float16)
    for options in ({"layers": (), "logits": False}, {"dtype": torch.int8}, {"prefix": 1}):
        with pytest.raises(ValueError, match=r"^TeacherCache: "):
            TeacherCache(tmp_path, teacher, **{"layers": LAYERS, **options})
    with pytest.raises(ValueError, match="no layer 'layer9'"):
        TeacherCache(tmp_path, teacher, "layer9")


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
    page = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    code = page.partition("read from a cache")[2].partition("```python\n")[2].partition("```")[0]
    names = {"teacher": teacher, "student": network(6, 1), "dataset": Images(), "method": KDSVD()}
    layers = {"student_names": LAYERS, "teacher_names": LAYERS}
    monkeypatch.chdir(tmp_path)
    exec(
        code.replace("epochs=100", "epochs=1"),
        {**names, **layers, "torch": torch, "DataLoader": DataLoader},
    )
    assert TeacherCache("cache", teacher, LAYERS, dtype=torch.float16).logits([9]).isfinite().all()


def test_a_teacher_that_learned_before_it_filled(teacher, tmp_path):
    """The rows are of the teacher that filled them, not of the one that opened the directory."""
    data, cache = Images(), TeacherCache(tmp_path, teacher, LAYERS)
    with torch.no_grad():
        teacher[0].bias += 1
    cache.fill(loader(data), progress=False)
    cache.check(loader(Indexed(data)))
    with torch.no_grad():
        torch.testing.assert_close(cache.logits(range(10)), teacher(data.x))


def test_one_layer_at_two_places(teacher, tmp_path):
    options = {"layers": ["2", "2"], "at": ("input", "output")}
    cache = filled(tmp_path, teacher, Images(), **options)
    found = TeacherCache(tmp_path, teacher, **options).features([0])
    assert [list(x.shape) for x in found] == [[1, 6, 4, 4], [1, 6, 2, 2]]
    assert list(cache.logits([0]).shape) == [1, 4]


def test_fit_asks_for_what_the_cache_holds(teacher, tmp_path):
    data = Indexed(Images())
    cache = filled(tmp_path, teacher, data, at="input")
    student, options = network(6, 1), {"epochs": 1, "progress": False}
    with pytest.raises(ValueError, match="was read at='input', fit asks for at='output'"):
        fit(student, cache, KDSVD(), loader(data), layers=(LAYERS, LAYERS), **options)
    with FeatureTap(student, LAYERS, at="input") as tap, FeatureTap(teacher, LAYERS) as other:
        method = SimilarityPreserving()
        fit(student, cache, method, loader(data), layers=(tap, LAYERS), **options)
        with pytest.raises(ValueError, match="asks for an open tap of the teacher"):
            fit(student, cache, method, loader(data), layers=(tap, other), **options)
