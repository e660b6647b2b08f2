"""FeatureTap and FeatureStream: places, wrappers, compilation, messages, no leaks."""

import gc
import weakref

import pytest
import torch
from torch import nn

from kdops.features import FeatureStream, FeatureTap


class Block(nn.Module):
    """A residual block whose one in-place ReLU runs twice, as in torchvision."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c)
        self.conv2, self.bn2 = nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1, self.layer2 = nn.Sequential(Block(4), Block(4)), nn.Sequential(Block(4))
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = self.layer2(self.layer1(self.stem(x)))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_output_and_input(net, images):
    with FeatureTap(
        net, ["layer1", "layer2", "fc", ""], at=["output", "input", "input", "output"]
    ) as tap:
        logits = net(images)
        first, same, pooled, last = tap.features
        assert tap["fc"] is pooled
    expected = net.layer1(net.stem(images))
    torch.testing.assert_close(first, expected)
    assert same is first
    torch.testing.assert_close(pooled, net.layer2(expected).mean((2, 3)))
    assert last is logits
    first.sum().backward()
    assert net.stem.weight.grad.abs().max() > 0


def test_pre_activation_is_saved_before_it_is_overwritten(net, images):
    with FeatureTap(net, ["layer1", "layer1.0.relu"], at="pre_activation") as tap:
        net(images)
        last_block, first_block = tap.features
    x = net.stem(images)
    b0, b1 = net.layer1
    inner = torch.relu(b0.bn1(b0.conv1(x)))
    pre0 = b0.bn2(b0.conv2(inner)) + x
    y = torch.relu(pre0)
    pre1 = b1.bn2(b1.conv2(torch.relu(b1.bn1(b1.conv1(y))))) + y
    torch.testing.assert_close(first_block, pre0)
    torch.testing.assert_close(last_block, pre1)
    assert (last_block < 0).any()


def test_overwritten_output_is_reported(net, images):
    with FeatureTap(net, "layer1.0.bn1") as tap:
        net(images)
        with pytest.raises(RuntimeError, match=r"'layer1\.0\.bn1' was overwritten.*pre_activation"):
            _ = tap.features


def test_messages(net):
    with pytest.raises(ValueError, match=r"no layer 'layer3' in Net; near names: \['layer"):
        FeatureTap(net, "layer3")
    with pytest.raises(ValueError, match=r"no layer 'zzz'.*\['stem', 'layer1', 'layer2', 'fc'\]"):
        FeatureTap(net, "zzz")
    with pytest.raises(ValueError, match="'fc' \\(Linear\\) holds no activation"):
        FeatureTap(net, "fc", at="pre_activation")
    with pytest.raises(ValueError, match="at='middle'"):
        FeatureTap(net, "fc", at="middle")
    tap = FeatureTap(net, "fc")
    with pytest.raises(RuntimeError, match="nothing recorded at 'fc'"):
        _ = tap.features
    tap.close()
    with pytest.raises(RuntimeError, match="closed; read 'fc'"):
        _ = tap.features


def test_a_failed_construction_leaves_no_hook(net):
    with pytest.raises(ValueError, match="layer9"):
        FeatureTap(net, ["layer1", "layer9"])
    with pytest.raises(ValueError, match="activation"):
        FeatureTap(net, ["layer1", "fc"], at="pre_activation")
    assert hooks(net) == 0


def test_no_reference_after_exit(net, images):
    with FeatureTap(net, ["layer1", "layer2"]) as tap:
        net(images)
        feature = weakref.ref(tap.features[0])
    assert hooks(net) == 0
    gc.collect()
    assert feature() is None
    forgotten = FeatureTap(net, "layer1", at="pre_activation")
    assert hooks(net) > 0
    del forgotten
    gc.collect()
    assert hooks(net) == 0


def test_exit_on_error(net, images):
    def fails():
        with FeatureTap(net, "layer1"):
            net(images[:, :2])

    with pytest.raises(RuntimeError, match="channels"):
        fails()
    assert hooks(net) == 0


def test_several_taps_and_other_outputs(net, images):
    class Both(nn.Module):
        def forward(self, x):
            return {"meta": 1, "out": (x + 1, x)}

    net.layer2.add_module("both", Both())
    with FeatureTap(net, "layer1") as a, FeatureTap(net, ["layer1", "layer2.both"]) as b:
        x = net.layer2.both(net.layer1(net.stem(images)))["out"]
        torch.testing.assert_close(b.features[1], x[0])
        assert a.features[0] is b.features[0]
        a.clear()
        assert b.features[0] is x[1]


def test_wrappers(net, images):
    with FeatureTap(nn.DataParallel(net), "layer1") as tap:
        net(images)
        torch.testing.assert_close(tap.features[0], net.layer1(net.stem(images)))


def test_inference_mode(net, images):
    with torch.inference_mode(), FeatureTap(net, "layer1") as tap:
        net(images)
        assert tap.features[0].is_inference()


def test_compiled_model(net, images):
    expected = net.layer1(net.stem(images))
    tap = FeatureTap(net, ["layer1", "layer2"], at=["output", "pre_activation"])
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    compiled(torch.randn(2, 3, 6, 6))
    compiled(images)
    torch.testing.assert_close(tap.features[0], expected)
    assert (tap.features[1] < 0).any()
    tap.features[0].sum().backward()
    assert net.stem.weight.grad is not None
    tap.close()
    compiled(images)
    late = FeatureTap(compiled, "layer1")
    compiled(images)
    with pytest.raises(RuntimeError, match="tap a compiled model before its first call"):
        _ = late.features
    late.close()


def test_stream(net, images):
    net.train()
    loader = [(images, torch.zeros(2)), (images + 1, torch.zeros(2))]
    stream = FeatureStream(net, ["layer1", "fc"], loader, at=["output", "input"])
    walks = [list(stream), list(stream)]
    assert net.training
    assert [len(w) for w in walks] == [2, 2]
    for a, b in zip(*walks, strict=True):
        torch.testing.assert_close(a, b)
        assert not a[0].requires_grad
    assert hooks(net) == 0
