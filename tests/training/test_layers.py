"""list_layers, the hints of a name that is not there, and outputs that are no plain tensors."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from kdops import FeatureTap
from kdops.features import list_layers


@dataclass
class Output:
    """As the outputs of Hugging Face."""

    loss: Tensor | None
    hidden: Tensor
    attentions: tuple = ()


class Mobile(nn.Module):
    """Named as MobileNet is: no layer1."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(6)), nn.Dropout(0.5))
        self.classifier = nn.Linear(3, 5)
        self.aside = nn.Linear(3, 5)

    def forward(self, x, mask=None):
        x = self.features(x).mean((2, 3))
        return Output(None, self.classifier(x))


def test_a_table_of_layers():
    net = Mobile().train()
    net.aside.eval()
    table = list_layers(net, torch.randn(2, 3, 4, 4), mask=None)
    by_name = {layer.name: layer for layer in table}
    assert by_name["features.2"] == ("features.2", "Conv2d", (2, 3, 4, 4))
    assert by_name[""] == ("", "Mobile", (2, 5))
    assert by_name["aside"].shape is None
    assert net.training
    assert net.features[6].training
    assert not net.aside.training
    assert not any(m._forward_hooks for m in net.modules())
    lines = repr(table).splitlines()
    assert len(lines) == 1 + len(table)
    assert lines[3].split(maxsplit=2) == ["features.0", "Conv2d", "[2, 3, 4, 4]"]
    with pytest.raises(RuntimeError):
        list_layers(net, torch.randn(2, 2, 4, 4))
    assert net.training
    assert not any(m._forward_hooks for m in net.modules())


def test_a_hint_that_helps():
    with pytest.raises(ValueError, match="no layer 'layer1' in Mobile") as caught:
        FeatureTap(Mobile(), "layer1")
    text = str(caught.value)
    assert "near names" not in text
    assert "top-level layers: ['features', 'classifier', 'aside']" in text
    assert "stages: ['features.0 .. features.6']" in text
    assert "list_layers" in text
    with pytest.raises(ValueError, match=r"near names: \['features\.1'"):
        FeatureTap(Mobile(), "feature.1")


def test_outputs_and_inputs_that_are_no_plain_tensors():
    class Layer(nn.Module):
        def forward(self, hidden=None, pair=()):
            return [(), {"none": None}, Output(None, hidden + 1, (hidden,))]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Layer()

        def forward(self, x):
            return self.layer(hidden=x)[2]

    net, x = Net(), torch.randn(2, 3)
    with FeatureTap(net, ["layer", "layer", ""], at=["input", "output", "output"]) as tap:
        net(x)
        assert tap.features[0] is x
        torch.testing.assert_close(tap.features[1], x + 1)
        torch.testing.assert_close(tap.features[2], x + 1)
    nothing = nn.Sequential(nn.Identity())
    with (
        FeatureTap(nothing, "0"),
        pytest.raises(ValueError, match="FeatureTap: found no tensor in a dict"),
    ):
        nothing({"a": [1, "b"]})
