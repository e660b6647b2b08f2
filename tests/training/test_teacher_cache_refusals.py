"""TeacherCache refuses whatever does not fit to it: inputs, files, networks, loaders."""

import json

import pytest
import torch
from support.cached_teacher import LAYERS, Images, filled, loader, network

from kdops import FeatureTap
from kdops.distillers import KDSVD, SimilarityPreserving
from kdops.training import Indexed, TeacherCache, fit


@pytest.fixture
def teacher():
    return network(6, 0)


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


def test_a_teacher_that_learned_before_it_filled(teacher, tmp_path):
    """The rows are of the teacher that filled them, not of the one that opened the directory."""
    data, cache = Images(), TeacherCache(tmp_path, teacher, LAYERS)
    with torch.no_grad():
        teacher[0].bias += 1
    cache.fill(loader(data), progress=False)
    cache.check(loader(Indexed(data)))
    with torch.no_grad():
        torch.testing.assert_close(cache.logits(range(10)), teacher(data.x))


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
