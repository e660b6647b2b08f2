"""Networks of the libraries that people use, with random weights: skipped where they are not."""

import pytest
import torch

import kdops.distillers as kd
from kdops import FeatureTap
from kdops.features import list_layers
from kdops.integrations.timm import tap
from kdops.training import fit


def bert(width, depth):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=2, vocab_size=60,
        intermediate_size=2 * width, num_labels=3,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def test_bert_to_a_smaller_bert():
    torch.manual_seed(0)
    student, teacher = bert(16, 2), bert(32, 4)
    mask = (torch.arange(12) < torch.tensor([[12], [5], [8], [12]])).long()
    batch = {"input_ids": torch.randint(0, 60, (4, 12)), "attention_mask": mask}
    names = {layer.name: layer.shape for layer in list_layers(student, **batch)}
    assert names["bert.encoder.layer.1"] == (4, 12, 16)
    with pytest.raises(ValueError, match=r"bert\.encoder\.layer\.0 \.\. bert\.encoder\.layer\.1"):
        FeatureTap(student, "layer1")
    svd = kd.KDSVD([16, 16], [32, 32])
    method = kd.WeightedSum({"kd": kd.SoftTarget(), "svd": svd}, layout="tokens")
    layers = (
        [f"bert.encoder.layer.{i}" for i in (0, 1)],
        [f"bert.encoder.layer.{i}" for i in (1, 3)],
    )
    optimizer = torch.optim.AdamW([*student.parameters(), *method.parameters()], 1e-2)
    batches = [{**batch, "labels": torch.tensor([0, 1, 2, 0])}] * 3
    rows = fit(student, teacher, method, batches, epochs=4, layers=layers, optimizer=optimizer,
               progress=False)  # fmt: skip
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]


def test_vit():
    timm = pytest.importorskip("timm")
    nets = [
        timm.create_model(
            "vit_tiny_patch16_224", img_size=64, embed_dim=width, depth=2, num_heads=2
        )
        for width in (16, 32)
    ]
    images, options = torch.randn(2, 3, 64, 64), {"layout": "tokens", "prefix": 1}
    with FeatureTap(nets[0], ["blocks.0", "blocks.1"], **options, grid="square") as s:
        nets[0](images)
        assert s.features[0].shape == (2, 16, 4, 4)
    taps = [FeatureTap(net, ["blocks.0", "blocks.1"], **options) for net in nets]
    for net in nets:
        net(images)
    loss = kd.KDSVD([16, 16], [32, 32])(*(tap.features for tap in taps))
    loss.backward()
    assert nets[0].blocks[0].mlp.fc1.weight.grad.abs().max() > 0


GRAPHS = {
    "resnet50": ({}, 5),
    "mobilenetv3_small_050": ({}, 5),
    "convnext_atto": ({}, 4),
    "vit_small_patch16_224": ({"img_size": 64}, 12),
}


def steps(student, teacher, taps, images):
    """Two of fit, logits and features: the student moves from end to end, the teacher does not."""
    for net in (student, teacher):
        net.eval()(images)
    svd = kd.KDSVD.from_sample(*(tap.features for tap in taps))
    method = kd.WeightedSum({"kd": kd.SoftTarget(), "at": kd.AT(), "svd": svd}, {"at": 1e-2})
    optimizer = torch.optim.SGD([*student.parameters(), *method.parameters()], 1e-2)
    before = [[p.detach().clone() for p in net.parameters()] for net in (student, teacher)]
    batches = [(images, torch.arange(len(images)))]
    rows = fit(student, teacher, method, batches, epochs=2, layers=taps, optimizer=optimizer,
               progress=False)  # fmt: skip
    assert rows[-1]["distill"] > 0
    moved = [
        [not torch.equal(a, p) for a, p in zip(old, net.parameters(), strict=True)]
        for old, net in zip(before, (student, teacher), strict=True)
    ]
    assert moved[0][0]  # the first layer
    assert moved[0][-1]  # the classifier
    assert not any(moved[1])


@pytest.mark.parametrize("name", GRAPHS)
def test_timm_by_name(name):
    timm = pytest.importorskip("timm")
    options, count = GRAPHS[name]
    student, teacher = (timm.create_model(name, num_classes=10, **options) for _ in range(2))
    with tap(student, [count // 2, -1]) as s, tap(teacher, [count // 2, -1]) as t:
        steps(student, teacher, (s, t), torch.randn(2, 3, 64, 64))
        shape = s.features[-1].shape
    assert len(shape) == 4
    assert len(tap(student).layers) == count


def test_a_tap_of_timm_refuses():
    timm = pytest.importorskip("timm")
    swin = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1), embed_dim=12,
                             num_heads=(1, 2))  # fmt: skip
    with pytest.raises(ValueError, match=r"SwinTransformer gives maps \(B, H, W, C\) at layers.0"):
        tap(swin)
    net = timm.create_model("resnet10t")
    with pytest.raises(ValueError, match=r"ResNet has the levels 0 to 4 .*, got \[5\]"):
        tap(net, [1, 5])
    with pytest.raises(ValueError, match="Linear has no feature_info"):
        tap(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("name", "layers"),
    [("resnet50", ["layer2", "layer3"]), ("mobilenet_v3_small", ["features.4", "features.9"])],
)
def test_torchvision_by_name(name, layers):
    models = pytest.importorskip("torchvision.models")
    student, teacher = (models.get_model(name, weights=None, num_classes=10) for _ in range(2))
    with FeatureTap(student, layers) as s, FeatureTap(teacher, layers) as t:
        steps(student, teacher, (s, t), torch.randn(2, 3, 64, 64))
