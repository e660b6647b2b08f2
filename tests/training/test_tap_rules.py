"""What a FeatureTap promises of its features: of this model, of the last forward, of this batch."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

import kdops.distillers as kd
from kdops import FeatureTap

LAYERS = ["first", "second"]


class Net(nn.Module):
    """Two layers; the second may be skipped, or checkpointed."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.reentrant = reentrant

    def rest(self, x):
        return torch.relu(self.second(x))

    def forward(self, x, short: bool = False):
        x = torch.tanh(self.first(x))
        if not short:
            if self.reentrant is None:
                x = self.rest(x)
            else:
                x = checkpoint(self.rest, x, use_reentrant=self.reentrant)
        return self.fc(x)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def x():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, AveragedModel, through_pickle, through_a_file]
)
def test_a_copied_model_has_no_tap(net, x, duplicate):
    with FeatureTap(net, LAYERS) as tap:
        net(x)
        twin = duplicate(net)
        mine = tap.features
        with torch.no_grad():
            twin(x + 1)
        assert all(a is b for a, b in zip(tap.features, mine, strict=True))
        assert all(f.requires_grad for f in tap.features)
        with FeatureTap(getattr(twin, "module", twin), LAYERS, at="input") as other:
            twin(x + 1)
            torch.testing.assert_close(other["first"], x + 1)


def test_a_copied_tap_is_closed(net, x):
    tap = FeatureTap(net, LAYERS)
    net(x)
    for twin in (copy.deepcopy(tap), through_pickle(tap)):
        assert twin.layers == LAYERS
        with pytest.raises(RuntimeError, match="closed; read 'second'"):
            _ = twin["second"]
    assert tap["second"].requires_grad


def test_a_layer_out_of_reach_has_no_old_value(net, x):
    with FeatureTap(net, LAYERS) as tap:
        net(x)
        assert tap["second"].requires_grad
        net(x, short=True)
        with pytest.raises(RuntimeError, match="nothing recorded at 'second' in the last forward"):
            _ = tap.features


@pytest.mark.parametrize("compiled", [False, True])
def test_features_of_an_earlier_batch(net, x, compiled):
    """The teacher was not run: its features, read for the batch before, are refused."""
    teacher = Net()
    with FeatureTap(net, LAYERS) as s, FeatureTap(teacher, LAYERS) as t:
        run_s, run_t = net, teacher
        if compiled:
            run_s, run_t = (
                torch.compile(m, backend="eager", fullgraph=True) for m in (net, teacher)
            )
        for batch in (x, x + 1):
            run_s(batch), run_t(batch)
            kept = t.features
            assert s["first"].requires_grad
            assert t.features[0] is kept[0]
        run_s(x + 2)
        assert s["first"].requires_grad
        with pytest.raises(
            RuntimeError, match=r"'first' were read before.*Call Net on the present"
        ):
            _ = t.features
        run_t(x + 2)
        assert t.features[0] is not kept[0]


def test_two_forwards_before_a_reading(net, x):
    with FeatureTap(net, LAYERS) as tap:
        net(x)
        with torch.no_grad():
            net(x + 1)
        with pytest.raises(RuntimeError, match=r"Net ran again.*'first'.*tap\.calls.*tap\.clear"):
            _ = tap.features
        tap.clear()
        net(x)
        assert tap.features[0].requires_grad


def test_views_by_index(net, x):
    views = [x, x + 1]
    with FeatureTap(net, LAYERS, at="input", calls=2) as tap:
        for step in range(3):
            out = sum(net(v + step).sum() for v in views)
            first, second = tap.calls
            torch.testing.assert_close(first[0], x + step)
            torch.testing.assert_close(second[0], x + 1 + step)
            assert tap.features[1] is second[1]
            if step == 1:
                (out + first[1].sum()).backward()
        tap.clear()
        net(x)
        with pytest.raises(RuntimeError, match="calls=2, but Net ran 1 times"):
            _ = tap.calls
    with pytest.raises(ValueError, match="number of forwards to keep, got 0"):
        FeatureTap(net, LAYERS, calls=0)


def test_forwards_that_need_no_thought(net, x):
    """Steps without a reading, gradient accumulation, evaluation of both kinds, a failed call."""
    with FeatureTap(net, LAYERS) as tap:
        for _ in range(3):
            net(x).sum().backward()
        net.eval()
        net(x), net(x)
        with torch.no_grad():
            net.train()(x), net(x)
        with pytest.raises(RuntimeError, match="shape"):
            net(x[:, :2])
        for _ in range(2):
            (net(x).sum() + tap.features[1].sum()).backward()


def test_compiled_views_by_index(net, x):
    with FeatureTap(net, "first", at="input", calls=2) as tap:
        run = torch.compile(net, backend="eager", fullgraph=True)
        for step in range(3):
            run(x + step), run(x - step)
            torch.testing.assert_close(tap.calls, [[x + step], [x - step]])


def test_nothing_is_left_of_symbolic_forwards(net, x):
    with FeatureTap(net, LAYERS) as tap:
        for strict in (False, True):
            torch.export.export(net, (x,), strict=strict)
        torch.jit.trace(net, (x,), check_trace=False)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            net(mode.from_tensor(x))
        with pytest.raises(RuntimeError, match="nothing recorded"):
            _ = tap.features
        net(x).sum().backward()
        assert type(tap.features[0]) is torch.Tensor


def test_script_asks_to_close_the_tap(net):
    script = torch.jit.script
    with FeatureTap(net, LAYERS), pytest.raises(AttributeError, match="close the tap first"):
        script(nn.Sequential(net.first))
    script(nn.Sequential(net.first))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers(x, reentrant):
    torch.manual_seed(0)
    net = Net(reentrant)
    with FeatureTap(net, LAYERS) as tap:
        loss = net(x).sum()
        second = tap.features[1]
        assert second.requires_grad != reentrant
        (loss if reentrant else loss + second.square().sum()).backward()
        assert tap.features[1] is second
    if not reentrant:
        plain = Net()
        plain.load_state_dict(net.state_dict())
        h = plain.second(torch.tanh(plain.first(x)))
        (plain.fc(torch.relu(h)).sum() + h.square().sum()).backward()
        torch.testing.assert_close(net.first.weight.grad, plain.first.weight.grad)


def test_a_student_without_gradient_is_named_once(net, x):
    teacher, method = Net(), kd.RKD()
    with FeatureTap(net, LAYERS) as s, FeatureTap(teacher, LAYERS) as t:
        for expected in (1, 0):
            with torch.no_grad():
                net(x), teacher(x)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with torch.no_grad():
                    kd.RKD()(s.features, t.features)
                method(s.features, t.features)
                method([f + 1 for f in s.features], t.features)
            texts = [str(w.message) for w in caught]
            assert len(texts) == expected
            assert all(
                "RKD: the student's features at 'first', 'second' need no" in w for w in texts
            )
            assert all(w.filename == __file__ for w in caught)
        net(x), teacher(x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kd.RKD()(s.features, t.features).backward()


@pytest.mark.usefixtures("group_of_one")
def test_ddp_autocast_and_ema_in_one_step(net, x):
    wrapped, teacher = DistributedDataParallel(net), Net()
    with FeatureTap(wrapped, LAYERS) as s, FeatureTap(teacher, LAYERS) as t:
        average = AveragedModel(net)
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                z = wrapped(x)
                with torch.no_grad():
                    teacher(x), average(x)
                loss = z.float().sum() + kd.RKD()(s.features, t.features)
            assert s.features[0].dtype == torch.bfloat16
            loss.backward()
            average.update_parameters(net)
    assert net.second.weight.grad.abs().max() > 0
