"""ModelOpt's distillation model with our methods: values, gradients, state, masks."""

import pytest
import torch
import torch.nn.functional as F
from support.two_levels import Net
from torch import nn

import kdops.distillers as kd
from kdops.features import FeatureTap

pytest.importorskip("modelopt")
mtd = pytest.importorskip("modelopt.torch.distill")

from kdops.integrations.modelopt import balancer, criterion  # noqa: E402

LAYERS = (["first", "second"], ["first", "second"])


def nets():
    torch.manual_seed(0)
    return Net(4), Net(6)


METHODS = {
    "one level": (lambda: kd.AT(), (["second"], ["second"])),
    "levels": (lambda: kd.KDSVD([4, 4], [6, 6]), LAYERS),
    "logits": (lambda: kd.SoftTarget(), None),
    "both": (lambda: kd.WeightedSum({"kd": kd.KD(), "svd": kd.KDSVD([4, 4], [6, 6])}), LAYERS),
}


def by_hand(student, teacher, method, layers, images, target):
    names = layers or LAYERS
    with FeatureTap(student, names[0]) as s, FeatureTap(teacher, names[1]) as t:
        with torch.no_grad():
            z_t = teacher(images)
        z_s = student(images)
        given = [
            method.inputs_from(tap.features if layers else None, z)
            for tap, z in ((s, z_s), (t, z_t))
        ]
        return F.cross_entropy(z_s, target) + 0.5 * method(*given)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_that_of_the_method(name):
    make, layers = METHODS[name]
    images, target = torch.randn(4, 3, 8, 8), torch.arange(4)
    torch.manual_seed(3)
    method = make()
    student, teacher = nets()
    expected = by_hand(student, teacher, method, layers, images, target)
    expected.backward()
    trained = [*student.parameters(), *method.parameters()]
    gradients = [p.grad.clone() for p in trained]
    student.zero_grad(), method.zero_grad()
    config = {"teacher_model": teacher, "criterion": criterion(method, layers),
              "loss_balancer": balancer(0.5)}  # fmt: skip
    model = mtd.convert(student, [("kd_loss", config)])
    model.train()
    for _ in range(2):
        model.zero_grad()
        loss = model.compute_kd_loss(student_loss=F.cross_entropy(model(images), target))
        torch.testing.assert_close(loss, expected.detach())
        loss.backward()
    for p, g in zip(trained, gradients, strict=True):
        torch.testing.assert_close(p.grad, g)


def test_the_methods_parameters_are_the_models():
    images, target = torch.randn(4, 3, 8, 8), torch.arange(4)
    student, teacher = nets()
    method = METHODS["levels"][0]()
    config = {"teacher_model": teacher, "criterion": criterion(method, LAYERS),
              "loss_balancer": balancer()}  # fmt: skip
    model = mtd.convert(student, [("kd_loss", config)])
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in method.parameters()} <= {id(p) for p in trained}
    optimizer = torch.optim.SGD(trained, 0.1)
    before = [p.detach().clone() for p in method.parameters()]
    losses = []
    for _ in range(4):
        loss = model.compute_kd_loss(student_loss=F.cross_entropy(model(images), target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(not torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))
    kept = {name: x.clone() for name, x in model.state_dict().items()}
    for p in method.parameters():
        nn.init.zeros_(p)
    model.load_state_dict(kept)
    assert all(p.any() for p in method.parameters())
    exported = mtd.export(model)
    assert not any("loss" in name for name in exported.state_dict())


class Tokens(nn.Module):
    """CLS and tokens, a layer that returns a tuple, an output that is a dict."""

    class Block(nn.Linear):
        def forward(self, x):
            return (super().forward(x).tanh(),)

    def __init__(self, width):
        super().__init__()
        self.embed, self.a, self.b = nn.Linear(3, width), self.Block(width, width), None
        self.b, self.head = self.Block(width, width), nn.Linear(width, 2)

    def forward(self, x):
        y = self.b(self.a(self.embed(x))[0])[0]
        return {"loss": y.sum(), "logits": self.head(y[:, 0])}


def test_tokens_with_a_mask():
    torch.manual_seed(0)
    student, teacher = Tokens(4), Tokens(6)
    method = kd.WeightedSum({"kd": kd.KD(), "svd": kd.KDSVD([4, 4], [6, 6])})
    losses = criterion(method, (["a", "b"], ["a", "b"]), layout="tokens", prefix=1)
    config = {"teacher_model": teacher, "criterion": losses, "loss_balancer": balancer()}
    model = mtd.convert(student, [("kd_loss", config)])
    x, mask = torch.randn(3, 7, 3), torch.arange(7) < torch.tensor([[7], [5], [4]])
    values = []
    for padding in (0.0, 9.0):
        model(torch.where(mask[..., None], x, torch.full_like(x, padding)))
        values.append(model.compute_kd_loss(mask=mask))
    torch.testing.assert_close(*values)


def test_refusals():
    method = kd.KDSVD()
    with pytest.raises(ValueError, match="2 layers of the student and 1 of the teacher"):
        criterion(method, (LAYERS[0], ["first"]))
    with pytest.raises(ValueError, match="ModelOpt reads a layer once, the teacher has"):
        criterion(method, (LAYERS[0], ["first"] * 2))
    with pytest.raises(ValueError, match="prefix and grid are of tokens"):
        criterion(method, LAYERS, prefix=1)
    last = list(criterion(method, LAYERS).values())[-1]
    with pytest.raises(RuntimeError, match="KDSVD: 1 of 2 levels came in"):
        last(torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4))
