"""Our methods out of torchdistill's YAML, in its own DistillationBox."""

import pytest
import torch
import torch.nn.functional as F
from support.two_levels import Net

import kdops.distillers as kd
from kdops.features import FeatureTap

pytest.importorskip("torchdistill")

from torchdistill.common.yaml_util import load_yaml_file
from torchdistill.core.distillation import get_distillation_box
from torchdistill.losses.registry import get_mid_level_loss

import kdops.integrations.torchdistill  # noqa: F401

COMMON = """
num_epochs: 1
train_data_loader:
  dataset_id: data
  requires_supp: False
  sampler: {class_or_func: !import_get {key: torch.utils.data.SequentialSampler}}
  kwargs: {batch_size: 4}
teacher:
  requires_grad: False
  forward_proc: forward_batch_only
  forward_hook: {output: [first, second]}
optimizer: {key: SGD, kwargs: {lr: 0.1}}
"""

PLAIN = """
student: {forward_proc: forward_batch_only, forward_hook: {output: [first, second]}}
criterion:
  key: WeightedSumLoss
  kwargs:
    sub_terms:
      ce:
        weight: 1.0
        criterion: {key: CrossEntropyLoss, kwargs: {}}
        criterion_wrapper:
          key: SimpleLossWrapper
          kwargs:
            input: {is_from_teacher: False, module_path: '.', io: output}
            target: {uses_label: True}
      kd:
        weight: 0.5
        criterion: {key: KdopsLoss, kwargs: {method: SoftTarget}}
      relations:
        weight: 0.2
        criterion:
          key: KdopsLoss
          kwargs: {method: RKD, student: [first, second], teacher: [first, second]}
"""

CONNECTED = """
student:
  forward_proc: forward_batch_only
  forward_hook: {output: [student_model.first, student_model.second]}
  auxiliary_model_wrapper:
    key: KdopsStudent
    kwargs:
      method: KDSVD
      options: {student_channels: [4, 4], teacher_channels: [6, 6]}
criterion:
  key: WeightedSumLoss
  kwargs:
    sub_terms:
      svd:
        weight: 1.0
        criterion:
          key: KdopsLoss
          kwargs:
            student: [student_model.first, student_model.second]
            teacher: [first, second]
"""


def box(text, folder):
    student, teacher = Net(4), Net(6)
    data = torch.utils.data.TensorDataset(torch.randn(8, 3, 8, 8), torch.arange(8) % 5)
    (folder / "config.yaml").write_text(COMMON + text)
    config = load_yaml_file(str(folder / "config.yaml"))
    device = torch.device("cpu")
    made = get_distillation_box(teacher, student, {"data": data}, config, device, None, False, 1)
    return made, student, teacher


def test_losses_without_parameters(tmp_path):
    made, student, teacher = box(PLAIN, tmp_path)
    images, target = next(iter(made.train_data_loader))
    made.pre_epoch_process(epoch=0)
    loss = made.forward_process(images, target)
    with FeatureTap(student, ["first", "second"]) as s, FeatureTap(teacher, s.layers) as t:
        z_s, z_t = student(images), teacher(images)
        expected = F.cross_entropy(z_s, target) + 0.5 * kd.SoftTarget()(z_s, z_t)
        expected = expected + 0.2 * kd.RKD()(s.features, t.features)
    torch.testing.assert_close(loss, expected)
    made.post_forward_process(loss=loss)
    again = made.forward_process(images, target)
    assert again < loss


def test_a_method_with_parameters_is_part_of_the_student(tmp_path):
    made, student, _ = box(CONNECTED, tmp_path)
    method = made.student_model.method
    known = {id(p) for group in made.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in [*method.parameters(), *student.parameters()]} <= known
    before = [p.detach().clone() for p in method.parameters()]
    losses = []
    made.pre_epoch_process(epoch=0)
    images, target = next(iter(made.train_data_loader))
    for _ in range(8):
        loss = made.forward_process(images, target)
        made.post_forward_process(loss=loss)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(not torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))
    assert any(name.startswith("method.") for name in made.student_model.state_dict())


def test_refusals():
    options = {"student_channels": [4, 4], "teacher_channels": [6, 6]}
    with pytest.raises(ValueError, match=r"KdopsLoss: KDSVD has trained parameters \(connectors"):
        get_mid_level_loss({"key": "KdopsLoss", "kwargs": {"method": "KDSVD", "options": options}})
    with pytest.raises(AttributeError, match="did you mean KDSVD"):
        get_mid_level_loss({"key": "KdopsLoss", "kwargs": {"method": "KDSDV"}})
    empty = get_mid_level_loss({"key": "KdopsLoss", "kwargs": {}})
    with pytest.raises(ValueError, match="no method here, and the student is no KdopsStudent"):
        empty({".": {"output": torch.zeros(2, 3)}}, {".": {"output": torch.zeros(2, 3)}}, None)
