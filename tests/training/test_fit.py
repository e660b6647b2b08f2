"""fit beyond images and logits: features and logits together, dict batches, accumulation, clip."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from kdops.distillers import FSP, KDSVD, FitNet, LearningWithoutForgetting, SoftTarget, WeightedSum
from kdops.features import FeatureTap
from kdops.training import clip_to_main, fit


@dataclass
class Output:
    """As Hugging Face networks return."""

    loss: Tensor | None
    logits: Tensor


class Encoder(nn.Module):
    """Two layers of tokens and a head; padding is seen by nobody but the method."""

    def __init__(self, width: int, classes: int = 3, per_token: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.head = nn.Linear(width, classes)
        self.per_token, self.own_loss = per_token, False

    def forward(self, input_ids, attention_mask=None, labels=None):
        x = self.embed(input_ids)
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        logits = self.head(x if self.per_token else x[:, 0])
        loss = 2 * nn.functional.cross_entropy(logits, labels) if self.own_loss else None
        return Output(loss, logits)


LAYERS = ["layers.0", "layers.1"]


def batches(count=4, per_token=False):
    g = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        mask = torch.arange(6) < torch.randint(2, 7, (4, 1), generator=g)
        ids = torch.randint(0, 11, (4, 6), generator=g)
        labels = torch.randint(0, 3, (4, 6) if per_token else (4,), generator=g)
        found.append({"input_ids": ids, "attention_mask": mask.long(), "labels": labels})
    return found


@pytest.fixture
def nets():
    torch.manual_seed(0)
    return Encoder(8), Encoder(8).eval()


def sgd(*modules):
    return torch.optim.SGD([p for m in modules for p in m.parameters()], 0.1)


def test_logits_and_features_together_on_dict_batches(nets):
    """One step of fit against the same by hand: a WeightedSum of SoftTarget and KDSVD, masked."""
    student, teacher = nets
    both = WeightedSum({"kd": SoftTarget(), "svd": KDSVD(layout="tokens")}, {"svd": 0.5})
    [batch] = batches(1)
    twin = Encoder(8)
    twin.load_state_dict(student.state_dict())
    [row] = fit(student, teacher, both, [batch], epochs=1, layers=(LAYERS, LAYERS), weight=0.7,
                optimizer=sgd(student), progress=False)  # fmt: skip
    with FeatureTap(twin, LAYERS) as s, FeatureTap(teacher, LAYERS) as t:
        logits = twin(batch["input_ids"]).logits
        with torch.no_grad():
            known = teacher(batch["input_ids"]).logits
        svd = KDSVD(layout="tokens")(s.features, t.features, mask=batch["attention_mask"])
        extra = SoftTarget()(logits, known) + 0.5 * svd
        loss = nn.functional.cross_entropy(logits, batch["labels"])
    assert row["loss"] == pytest.approx(float(loss.detach()))
    assert row["distill"] == pytest.approx(float(extra.detach()))
    (loss + 0.7 * extra).backward()
    sgd(twin).step()
    for p, q in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_taps_of_the_user_and_a_prefix(nets):
    """Open taps in the place of names; their prefix cuts the mask."""
    student, teacher = nets
    options = {"layout": "tokens", "prefix": 1}
    with FeatureTap(student, LAYERS, **options) as s, FeatureTap(teacher, LAYERS, **options) as t:
        rows = fit(student, teacher, KDSVD(), batches(), epochs=2, layers=(s, t), progress=False)
        assert rows[-1]["distill"] > 0
        with torch.no_grad():
            student(batches()[0]["input_ids"])
        assert len(s.features) == 2


def test_a_loss_of_the_network_and_of_tokens(nets):
    student, teacher = nets
    student.own_loss = True
    [row] = fit(student, teacher, None, batches(1), epochs=1, progress=False)
    student = Encoder(8)
    student.load_state_dict(nets[1].state_dict())
    [plain] = fit(student, teacher, None, batches(1), epochs=1, progress=False)
    assert row["loss"] != plain["loss"]
    token = Encoder(8, 5, per_token=True), Encoder(8, 5, per_token=True)
    method = SoftTarget(layout="tokens")
    rows = fit(*token, method, batches(per_token=True), epochs=3, progress=False)
    assert rows[-1]["loss"] < rows[0]["loss"]
    nameless = [{k: v for k, v in b.items() if k != "labels"} for b in batches(1)]
    with pytest.raises(ValueError, match=r"fit: found no loss.*pass step="):
        fit(Encoder(8), None, None, nameless, epochs=1, progress=False)


def test_which_inputs_a_method_gets():
    features, logits = [torch.zeros(2, 3)], torch.zeros(2, 5)
    assert SoftTarget().inputs_from(features, logits) is logits
    assert KDSVD().inputs_from(features, logits) is features
    assert KDSVD().inputs_from(None, logits) is logits
    assert LearningWithoutForgetting().inputs_from(features, logits) is features
    both = WeightedSum({"kd": SoftTarget(), "own": nn.Identity()})
    assert both.inputs_from(features, logits) == {"kd": logits, "own": features}
    assert WeightedSum({"a": KDSVD(), "b": FSP()}).inputs_from(features, logits) is features


def test_an_optimizer_without_the_methods_parameters(nets):
    """Silently untrained connectors are refused; frozen ones need no optimizer."""
    student, teacher = nets
    method = FitNet((8, 6), (8, 6), layout="tokens")
    options = {"epochs": 1, "layers": (LAYERS[:1], LAYERS[:1]), "progress": False}
    with pytest.raises(
        ValueError, match=r"optimizer has not 4 trained parameters of FitNet \(regr"
    ):
        fit(student, teacher, method, batches(), optimizer=sgd(student), **options)
    fit(student, teacher, method, batches(), optimizer=sgd(student, method), **options)
    method.requires_grad_(False)
    fit(student, teacher, method, batches(), optimizer=sgd(student), **options)


@pytest.mark.parametrize("clip", [False, True])
def test_accumulation_is_one_step_on_the_mean(nets, clip):
    """Four batches of 4, two to a step, against two of 8: exact for losses that are means."""
    student, teacher = nets
    twin = Encoder(8)
    twin.load_state_dict(student.state_dict())
    small = batches(4)
    large = [{k: torch.cat([a[k], b[k]]) for k in a} for a, b in (small[:2], small[2:])]
    options = {"epochs": 1, "progress": False, "clip": clip}
    fit(student, teacher, SoftTarget(), small, optimizer=sgd(student), accumulate=2, **options)
    fit(twin, teacher, SoftTarget(), large, optimizer=sgd(twin), **options)
    pairs = list(zip(student.parameters(), twin.parameters(), strict=True))
    if not clip:  # which is per batch
        for p, q in pairs:
            torch.testing.assert_close(p, q)
    assert all(torch.isfinite(p).all() for p, _ in pairs)
    with pytest.raises(ValueError, match="number of batches to a step, got 0"):
        fit(student, teacher, None, small, accumulate=0, **options)


def test_what_is_left_of_an_epoch_is_a_step_too(nets):
    student, teacher = nets
    steps = []
    optimizer = sgd(student)
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    fit(student, teacher, None, batches(5), epochs=2, accumulate=2, optimizer=optimizer,
        progress=False)  # fmt: skip
    assert len(steps) == 6


class Passes(torch.autograd.Function):
    """Counts the backward passes through it."""

    count = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        Passes.count += 1
        return grad


def two_losses(net, x, free):
    z = net(Passes.apply(x))
    return z.square().mean(), 50 * (free * (z - 1)).square().sum()


def gradients(loss, params):
    return [g for g in torch.autograd.grad(loss, params, retain_graph=True) if g is not None]


def norm(gs):
    return torch.cat([g.flatten() for g in gs]).norm()


@pytest.mark.parametrize("every", [1, 3])
def test_a_global_factor_that_is_held(every):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    free = nn.Parameter(torch.ones(2, dtype=torch.float64))
    params, factor = list(net.parameters()), None
    for i in range(7):
        x = torch.randn(3, 4, dtype=torch.float64)
        main, distill = two_losses(net, x, free)
        g_main, g_distill = gradients(main, params), gradients(distill, params)
        if i % every == 0:
            factor = min(1.0, float(norm(g_main) / (1 + torch.e**-2) / norm(g_distill)))
        [g_free] = gradients(distill, [free])
        for p in [*params, free]:
            p.grad = None
        main, distill = two_losses(net, x, free)
        clip_to_main(main, distill, params, free=[free], epoch=2, per="global", every=every)
        for p, a, b in zip(params, g_main, g_distill, strict=True):
            torch.testing.assert_close(p.grad, a + factor * b)
        torch.testing.assert_close(free.grad, g_free)
        with torch.no_grad():
            for p in params:
                p -= 0.05 * p.grad
    assert 0 < factor < 1


def test_passes_per_step():
    net, free = nn.Linear(4, 2), nn.Parameter(torch.ones(2))
    x, counts = torch.randn(3, 4), []
    first = nn.Parameter(torch.ones(4))
    for _ in range(6):
        main, distill = two_losses(net, x * first, free)
        Passes.count = 0
        clip_to_main(main, distill, [first, *net.parameters()], per="global", every=3)
        counts.append(Passes.count)
    assert counts == [2, 1, 1, 2, 1, 1]


def test_a_factor_that_overflowed_is_not_kept():
    w = nn.Parameter(torch.ones(2))
    losses = [(w.sum(), w.sum() * scale) for scale in (4.0, 4.0, float("inf"), 4.0)]
    found = []
    for main, distill in losses:
        w.grad = None
        clip_to_main(main, distill, [w], epoch=None, per="global", every=2)
        found.append(w.grad)
    torch.testing.assert_close(found[0], torch.full((2,), 2.0))
    assert not found[2].isfinite().all()  # for a GradScaler to see
    torch.testing.assert_close(found[3], torch.full((2,), 2.0))


def test_clip_options():
    w = nn.Parameter(torch.ones(2))
    for options in ({"every": 2}, {"per": "layer"}, {"per": "global", "every": 0}):
        with pytest.raises(ValueError, match=r"^clip_to_main: (every|per)"):
            clip_to_main(w.sum(), w.sum(), [w], **options)


def test_fit_with_a_held_factor(nets, tmp_path):
    """It learns, measures at the start of every epoch, and goes on along the same curve."""
    student, teacher = nets
    start = {k: v.clone() for k, v in student.state_dict().items()}
    clip = {"per": "global", "every": 3}
    options = {"layers": (LAYERS, LAYERS), "clip": clip, "progress": False}
    method = KDSVD(layout="tokens")
    whole = fit(student, teacher, method, batches(), epochs=3, optimizer=sgd(student), **options)
    assert whole[-1]["loss"] < whole[0]["loss"]
    student.load_state_dict(start)
    file = tmp_path / "run.pt"
    for epochs in (1, 3):
        rows = fit(student, teacher, method, batches(), epochs=epochs, optimizer=sgd(student),
                   checkpoint=file, **options)  # fmt: skip
    assert [r["loss"] for r in rows] == [r["loss"] for r in whole]
    with pytest.raises(ValueError, match=r"fit: clip takes per, every and passes.*\['often'\]"):
        fit(student, teacher, method, batches(), epochs=1, layers=(LAYERS, LAYERS),
            clip={"often": 2}, progress=False)  # fmt: skip
