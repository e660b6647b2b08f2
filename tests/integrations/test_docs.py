"""The code of docs/integrations.md, section by section, on small networks of its layer names."""

from pathlib import Path

import pytest
import torch
from torch import nn

TEXT = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text()


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer1, self.layer2 = nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 3)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.layer2(self.layer1(x).tanh()).tanh().mean((2, 3)))


def code(section, language="python"):
    part = TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = part.partition(f"```{language}\n")[2].partition("```")[0]
    assert found
    return found


def names(folder, size=16):
    data = torch.utils.data.TensorDataset(torch.randn(8, 3, size, size), torch.arange(8))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    given = {"student": Net(8), "teacher": Net(16), "data": data, "loader": loader}
    return {**given, "folder": str(folder), "images": data.tensors[0]}


def test_hugging_face(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    nets = [
        transformers.BertForSequenceClassification(
            transformers.BertConfig(
                hidden_size=width, num_hidden_layers=depth, num_attention_heads=2, vocab_size=60,
                intermediate_size=2 * width, num_labels=3,
            )
        )
        for width, depth in ((16, 2), (32, 4))
    ]  # fmt: skip
    mask = torch.arange(8) < 6
    rows = [{"input_ids": torch.arange(8) + i, "attention_mask": mask, "labels": i % 3}
            for i in range(8)]  # fmt: skip
    given = {"student": nets[0], "teacher": nets[1], "data": rows, "folder": str(tmp_path)}
    exec(code("Hugging Face Trainer"), given)
    assert given["trainer"].state.global_step == 2
    assert (tmp_path / "checkpoint-2" / "kdops_method.pt").exists()


def test_lightning(tmp_path, monkeypatch):
    pytest.importorskip("lightning.pytorch")
    monkeypatch.chdir(tmp_path)
    given = names(tmp_path)
    exec(code("Lightning"), given)
    assert given["trainer"].current_epoch == 1


def test_modelopt(tmp_path):
    pytest.importorskip("modelopt.torch.distill")
    given = names(tmp_path)
    exec(code("NVIDIA ModelOpt"), given)
    assert type(given["student"]) is Net
    assert given["loss"].isfinite()


def test_torchdistill(tmp_path):
    pytest.importorskip("torchdistill")
    from torchdistill.common.main_util import import_dependencies
    from torchdistill.common.yaml_util import load_yaml_file
    from torchdistill.core.distillation import get_distillation_box

    (tmp_path / "config.yaml").write_text(code("torchdistill", "yaml"))
    config, given = load_yaml_file(str(tmp_path / "config.yaml")), names(tmp_path)
    import_dependencies(config["dependencies"])
    parts = (given["teacher"], given["student"], {"data": given["data"]}, config["train"])
    box = get_distillation_box(*parts, torch.device("cpu"), None, False, 1)
    before = [p.detach().clone() for p in box.student_model.parameters()]
    box.pre_epoch_process(epoch=0)
    for images, target, supplement in box.train_data_loader:
        box.post_forward_process(loss=box.forward_process(images, target, supplement))
    moved = zip(before, box.student_model.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in moved)


def test_timm(tmp_path):
    pytest.importorskip("timm")
    given = names(tmp_path, 64)
    exec(code("timm"), given)
    assert given["s"].layers == ["blocks.3", "blocks.11"]
