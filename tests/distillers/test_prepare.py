"""The preparatory phases: what is computed once, what is left out, what is shown, what can fail."""

import sys
from functools import partial

import pytest
import torch

import kdops.distillers as kd
from kdops import _progress
from kdops.distillers import _graph_method
from kdops.distillers.factor_transfer import STEPS, WORK
from kdops.features import FeatureStream

LEVELS = [(4, 3, 3), (6, 2, 2)]
CHANNELS = [c for c, _, _ in LEVELS]
GRAPHS = {
    "MHGD": kd.MHGD,
    "IEP": kd.IEP,
    "IEP, black box": partial(kd.IEP, black_box=True, heads=2),
}


def batches(count=3, size=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return [
        [torch.randn(size, *level, generator=generator, dtype=dtype) for level in LEVELS]
        for _ in range(count)
    ]


def fresh(name):
    torch.manual_seed(0)
    return GRAPHS[name](CHANNELS, CHANNELS).double()


def state(method):
    return {k: v.clone() for k, v in method.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Loader:
    """Counts its walks; of every walk the samples come in another order, if shuffled."""

    def __init__(self, shuffled=False):
        self.walks, self.shuffled = 0, shuffled

    def __iter__(self):
        self.walks += 1
        roll = self.walks if self.shuffled else 0
        yield from [[t.roll(roll, 0) for t in batch] for batch in batches()]


@pytest.fixture
def decomposed(monkeypatch):
    """The shapes that the graph methods' preparatory phase decomposes."""
    shapes, real = [], _graph_method.batched_svd

    def counted(x, *args, **options):
        shapes.append(list(x.shape))
        return real(x, *args, **options)

    monkeypatch.setattr(_graph_method, "batched_svd", counted)
    return shapes


@pytest.mark.parametrize("name", GRAPHS)
def test_every_map_is_decomposed_once(name, decomposed):
    loader = Loader()
    fresh(name).prepare(loader, epochs=4)
    assert loader.walks == 1
    assert decomposed == [[5, 9, 4], [5, 4, 6]] * 3


@pytest.mark.parametrize("name", GRAPHS)
def test_vectors_that_are_kept_change_nothing(name, decomposed):
    found = []
    for keep in ("cpu", None):
        method = fresh(name)
        torch.manual_seed(1)
        history = method.prepare(batches(), epochs=4, keep=keep)
        found.append((history, state(method)))
    assert len(decomposed) == 2 * 3 * (1 + 4 + name.startswith("IEP"))
    assert found[0][0] == found[1][0]
    assert same(found[0][1], found[1][1])


@pytest.mark.parametrize("name", GRAPHS)
def test_kept_batches_are_those_of_the_first_walk(name):
    """A shuffling loader: its first walk in every epoch, or with keep=None each walk's own."""
    kept, first, anew = fresh(name), fresh(name), fresh(name)
    loader, walked = Loader(shuffled=True), Loader(shuffled=True)
    once = list(Loader(shuffled=True))
    for method, food, keep in ((kept, loader, "cpu"), (first, once, None), (anew, walked, None)):
        torch.manual_seed(1)
        method.prepare(food, epochs=3, keep=keep)
    assert loader.walks == 1
    assert walked.walks == 3 + name.startswith("IEP")
    assert same(state(kept), state(first))
    assert not same(state(kept), state(anew))


@pytest.mark.parametrize("name", GRAPHS)
def test_one_walk_is_enough(name):
    one, listed = fresh(name), fresh(name)
    for method, food in ((one, iter(batches(1))), (listed, batches(1))):
        torch.manual_seed(1)
        assert len(method.prepare(food, epochs=3)) == 3
    assert same(state(one), state(listed))


@pytest.mark.parametrize("keep", ["cpu", None])
@pytest.mark.parametrize("name", GRAPHS)
def test_no_batches(name, keep):
    method = fresh(name)
    with pytest.raises(ValueError, match=rf"{name[:3]}\w*\.prepare: no batches"):
        method.prepare([], keep=keep)
    assert not method.is_prepared()
    assert not any(p.requires_grad for p in method.parameters())


@pytest.mark.parametrize("name", GRAPHS)
def test_an_interrupted_walk_leaves_the_method_as_it_was(name):
    def interrupted():
        yield from batches(2)
        raise KeyboardInterrupt

    method = fresh(name)
    before = state(method)
    with pytest.raises(KeyboardInterrupt):
        method.prepare(interrupted())
    assert same(state(method), before)
    assert not method.is_prepared()
    assert not any(p.requires_grad for p in method.parameters())


@pytest.mark.parametrize("keep", ["cpu", torch.device("cpu")])
def test_only_the_vectors_are_kept(keep):
    """Not the decomposition that they are a part of, and in full precision."""
    method = kd.MHGD(CHANNELS, CHANNELS)
    for dtype in (torch.float32, torch.bfloat16):
        for vectors in method.teacher_vectors(batches(dtype=dtype), keep, False):
            assert [list(v.shape) for v in vectors] == [[5, c] for c in CHANNELS]
            assert {v.dtype for v in vectors} == {torch.float32}
            for v in vectors:
                assert v.untyped_storage().nbytes() == 4 * v.numel()


def test_a_stream_knows_its_length():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))
    assert len(FeatureStream(net, ["0"], [torch.randn(2, 3, 4, 4)] * 5)) == 5
    endless = FeatureStream(net, ["0"], (torch.randn(2, 3, 4, 4) for _ in range(2)))
    assert _progress.planned(endless, 3, None) is None
    assert _progress.planned(endless, 3, 7) == 7
    assert _progress.planned([1, 2], 3, 7) == 6
    assert len(list(endless)) == 2


def paraphrasers(count=2, size=4):
    generator = torch.Generator().manual_seed(3)
    return [[torch.randn(size, 6, 3, 3, generator=generator)] for _ in range(count)]


def factors(**options):
    torch.manual_seed(0)
    method = kd.FactorTransfer(5, 6)
    history = method.prepare(paraphrasers(), progress=False, **options)
    return method, history


def test_published_sizes_are_within_the_limits():
    """CIFAR: 50,000 images in batches of 128, 30 epochs, levels of ResNets, VGG and WRN-40-4."""
    assert STEPS >= 30 * -(-50_000 // 128)
    with torch.device("meta"):
        for c, size in ((16, 32), (64, 32), (64, 8), (128, 16), (256, 8), (512, 4), (512, 2)):
            t = torch.empty(128, c, size, size)
            assert kd.FactorTransfer(c, c)._share(0, t, 3, WORK) is t


def test_maps_of_224_pixels_are_fewer():
    """A step costs no more than the limit, whatever the batch; one map at least is seen."""
    with torch.device("meta"):
        for c, size in ((256, 56), (512, 28), (1024, 14), (2048, 7), (2048, 14)):
            method, t = kd.FactorTransfer(c, c), torch.empty(128, c, size, size)
            few = method._share(0, t, 0, WORK).shape[0]
            assert few == (3 if size != 14 or c == 1024 else 1)
            assert few == 1 or few * method._map_work(0, t) <= WORK
            assert method._map_work(0, t) == 31.5 * c * c * size * size


def test_without_limits_nothing_changes():
    free, history = factors(epochs=3, work=None, steps=None)
    limited, same_history = factors(epochs=3)
    assert history == same_history
    assert same(state(free), state(limited))


def test_fewer_maps_are_others_in_every_epoch():
    method = kd.FactorTransfer(5, 6)
    seen = []
    method.encoders[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    work = 3 * method._map_work(0, paraphrasers()[0][0])
    method.prepare(paraphrasers(), epochs=3, work=work, progress=False)
    first, second = (batch[0] for batch in paraphrasers())
    for epoch, rows in enumerate(([0, 1, 2], [3, 0, 1], [2, 3, 0])):
        assert torch.equal(seen[2 * epoch], first[rows])
        assert torch.equal(seen[2 * epoch + 1], second[rows])


@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (2, 1), (5, 3), (6, 3), (9, 3)])
def test_steps_end_the_epochs(steps, epochs):
    method, history = factors(epochs=3, steps=steps)
    assert len(history) == epochs
    assert method.is_prepared()
    whole = factors(epochs=3)[1]
    assert history[: steps // 2] == whole[: min(steps // 2, 3)]


@pytest.mark.parametrize("bar", [True, False])
def test_the_cost_is_told_at_the_start(bar, monkeypatch, capsys):
    if not bar:
        monkeypatch.setattr(_progress, "tqdm", None)
    method = kd.FactorTransfer(5, 6)
    each = method._map_work(0, paraphrasers()[0][0])
    method.prepare(paraphrasers(), epochs=2, work=3 * each, steps=3)
    cost = f"FactorTransfer.prepare: {2e-9 * 9 * each:.3g} GFLOP a step, 3 steps at most, "
    assert cost + "3 of 4 maps of level 0 in each\n" in capsys.readouterr().err
    method.prepare(paraphrasers(), epochs=2, progress=False)
    kd.MHGD(CHANNELS, CHANNELS).prepare(batches(dtype=torch.float32), epochs=2, progress=False)
    assert capsys.readouterr() == ("", "")


def test_lines_without_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "tqdm", None)
    clock = iter([0.0, 4.0, 11.0, 11.0, 12.0])
    monkeypatch.setattr(_progress.time, "monotonic", lambda: next(clock))
    with _progress.Progress("A", [1, 2], 2, None, True) as bar:
        for _ in range(3):
            bar.step()
    assert capsys.readouterr().err == "A: 2 of 4 steps in 11 s, about 11 s left\n"


def test_a_bar_is_closed_by_an_error(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, **options):
            self.options, self.steps, self.closed = options, 0, False
            bars.append(self)

        def update(self):
            self.steps += 1

        def close(self):
            self.closed = True

        @staticmethod
        def write(text, file):
            assert file is sys.stderr

    monkeypatch.setattr(_progress, "tqdm", Bar)
    with pytest.raises(ValueError, match="no batches in epoch 1"):
        kd.FactorTransfer(5, 6).prepare(iter(paraphrasers()), epochs=2)
    assert [(bar.steps, bar.closed) for bar in bars] == [(2, True)]
    assert bars[0].options["desc"] == "FactorTransfer.prepare"
