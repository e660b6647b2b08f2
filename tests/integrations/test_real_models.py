"""Networks of the libraries that people use, with random weights: skipped where they are not."""

import pytest
import torch

import kdops.distillers as kd
from kdops import FeatureTap
from kdops.features import list_layers
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
