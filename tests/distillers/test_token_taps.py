"""Taps and streams of a transformer: tokens as maps, in eager and compiled steps."""

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import kdops.distillers as kd
from kdops import FeatureTap
from kdops.features import FeatureStream, tokens_to_maps


class Block(nn.Module):
    """Gives its tokens in a tuple, as Hugging Face layers do."""

    def __init__(self, width):
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        return (x + torch.tanh(self.mix(x)), None)


class Transformer(nn.Module):
    """CLS and 9 tokens."""

    def __init__(self, width=8):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))

    def forward(self, x, attention_mask=None):
        for block in self.blocks:
            (x, _) = block(x, attention_mask=attention_mask)
        return x[:, 0]


LAYERS = ["blocks.0", "blocks.1"]


def test_a_tap_of_tokens():
    net, x = Transformer(), torch.randn(4, 10, 8)
    with FeatureTap(net, [*LAYERS, ""], layout="tokens", prefix=1) as tap:
        net(x)
        first, second, cls = tap.features
        assert (first.shape, second.shape, cls.shape) == ((4, 8, 9), (4, 8, 9), (4, 8))
        torch.testing.assert_close(first, net.blocks[0](x)[0][:, 1:].transpose(1, 2))
        loss = kd.KDSVD()(tap.features[:2], tap.features[1::-1])
        assert loss > 0
    with FeatureTap(net, LAYERS, layout="tokens", prefix=1, grid="square") as tap:
        net(x)
        assert tap.features[0].shape == (4, 8, 3, 3)
        torch.testing.assert_close(tap.features[0].flatten(2), first)
    with FeatureTap(net, LAYERS, layout="tokens", grid=(2, 2)) as tap:
        net(x)
        with pytest.raises(
            ValueError, match=r"FeatureTap: at 'blocks.0': 10 tokens.*grid \(2, 2\)"
        ):
            _ = tap.features
    with pytest.raises(ValueError, match="say layout='tokens'"):
        FeatureTap(net, LAYERS, prefix=1)
    with FeatureTap(net, LAYERS, layout="channels") as tap:
        net(x)
        assert tap.features[0].shape == (4, 10, 8)
        assert kd.NST()(tap.features, tap.features) == 0


def test_tokens_to_maps_messages():
    x = torch.randn(2, 5, 3)
    for options in ({"prefix": 5}, {"prefix": -1}, {"grid": "square"}, {"grid": (5,)}, {"grid": 5}):
        with pytest.raises(ValueError, match=r"^tokens_to_maps: "):
            tokens_to_maps(x, **options)
    with pytest.raises(ValueError, match=r"expected tokens \(B, N, D\)"):
        tokens_to_maps(x[0])
    assert tokens_to_maps(x, prefix=1, grid=(1, 4)).data_ptr() == x[:, 1:].data_ptr()


def test_compiled_steps_keep_the_layout():
    student, teacher = Transformer(), Transformer()
    method, x = kd.KDSVD(), torch.randn(4, 10, 8)
    options = {"layout": "tokens", "prefix": 1}
    with FeatureTap(student, LAYERS, **options) as s, FeatureTap(teacher, LAYERS, **options) as t:

        def step(x):
            student(x), teacher(x)
            return method(s.features, t.features)

        expected = step(x)
        torch.testing.assert_close(
            torch.compile(step, backend="aot_eager", fullgraph=True)(x), expected
        )
        run_s, run_t = (
            torch.compile(m, backend="eager", fullgraph=True) for m in (student, teacher)
        )
        run_s(x), run_t(x)
        torch.testing.assert_close(method(s.features, t.features), expected)


def test_a_stream_of_padded_tokens():
    """prepare() of a stream sees no padding: its batches are dicts with an attention_mask."""
    net, x, mask = (
        Transformer(),
        torch.randn(4, 10, 8),
        torch.arange(10) < torch.tensor([10, 4, 7, 10])[:, None],
    )
    garbage = torch.where(mask[..., None], x, torch.full_like(x, 1e6))
    loader = [{"x": garbage, "attention_mask": mask.long(), "labels": torch.zeros(4)}]
    [found] = FeatureStream(net, LAYERS, loader, layout="tokens", prefix=1)
    expected = net.blocks[0](x)[0].detach()[:, 1:] * mask[:, 1:, None]
    torch.testing.assert_close(found[0], expected.transpose(1, 2))
    method = kd.MHGD([8, 8], [8, 8])
    method.prepare(FeatureStream(net, LAYERS, loader, layout="tokens"), epochs=1, progress=False)


@pytest.mark.slow
def test_compiled_masks():
    """Methods that read padding as zeros compile whole, with the value and gradient of eager."""
    names = ["KDSVD", "AttentionTransfer", "FSP", "NST", "RKD", "SimilarityPreserving"]
    both = kd.WeightedSum({name: getattr(kd, name)() for name in names}, layout="tokens")
    s, t = ([torch.randn(4, 9, 8, requires_grad=True) for _ in range(2)] for _ in range(2))
    mask = torch.arange(9) < torch.tensor([9, 4, 7, 2])[:, None]
    results = []
    for run in (both, torch.compile(both, backend="aot_eager", fullgraph=True)):
        loss = run(s, t, mask=mask)
        results.append([loss, *torch.autograd.grad(loss, s)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")
def test_fully_sharded(group_of_one):
    """fully_shard: the values of the plain network, and gradients that reach its shards."""
    torch.manual_seed(0)
    net, x = Transformer(), torch.randn(4, 10, 8)
    with FeatureTap(net, LAYERS, layout="tokens") as tap:
        net(x)
        expected = kd.NST()(tap.features, tap.features[::-1])
    mesh = init_device_mesh("cpu", (1,))
    for part in (*net.blocks, net):
        fully_shard(part, mesh=mesh)
    with FeatureTap(net, LAYERS, layout="tokens") as tap:
        net(x)
        loss = kd.NST()(tap.features, tap.features[::-1])
        loss.backward()
    torch.testing.assert_close(loss, expected)
    assert net.blocks[0].mix.weight.grad.to_local().abs().max() > 0
