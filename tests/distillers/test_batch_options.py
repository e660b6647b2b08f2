"""What methods need of a batch besides features reaches them through fit."""

import pytest
import torch
from torch import nn

import kdops.distillers as kd
from kdops.training import fit


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, x):
        return self.layer(x)


def batch(seed=0):
    torch.manual_seed(seed)
    return torch.randn(8, 6), torch.arange(8) % 5


def distill(method, batches):
    """The distiller's loss of one epoch, and of the same logits by hand."""
    torch.manual_seed(1)
    student, teacher = Classifier(), Classifier()
    x, y = batch()
    with torch.no_grad():
        logits = student(x), teacher(x)
    optimizer = torch.optim.SGD(student.parameters(), 1e-3)
    [row] = fit(student, teacher, method, batches, epochs=1, optimizer=optimizer, progress=False)
    return row["distill"], logits, y


def test_targets():
    for batches in ([batch()], [{"x": batch()[0], "labels": batch()[1]}]):
        found, logits, y = distill(kd.DKD(), batches)
        assert found == pytest.approx(float(kd.DKD()(*logits, y)), rel=1e-5)
    both = kd.WeightedSum({"kd": kd.SoftTarget(), "wsld": kd.WSLD()}, {"wsld": 2.5})
    found, logits, y = distill(both, [batch()])
    expected = kd.SoftTarget()(*logits) + 2.5 * kd.WSLD()(*logits, y)
    assert found == pytest.approx(float(expected), rel=1e-5)
    assert both.batch_options(lambda name: name) == {"wsld": {"target": "target"}}


def test_a_batch_without_a_target():
    def step(images, epoch):
        raise AssertionError

    assert kd.SoftTarget().batch_options(step) == {}
    with pytest.raises(ValueError, match="DKD: needs the classes"):
        kd.DKD()(torch.randn(2, 3), torch.randn(2, 3))
