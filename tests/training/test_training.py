"""clip_to_main, fine-tuning, chains, and fit with AMP, log and losses that are not finite."""

import csv
import math

import pytest
import torch
from support.small_net import data, loader, mlp
from torch import nn

from kdops import training
from kdops.distillers import FitNet, SoftTarget
from kdops.training import clip_gradients, clip_to_main, fit, initialise_from


def by_hand(g_main, g_distill, epoch):
    norm = lambda g: math.sqrt(float((g.double() ** 2).sum()))  # noqa: E731
    sigma = 1 if epoch is None else 1 / (1 + math.exp(-epoch))
    if norm(g_distill) == 0:
        return g_main
    return g_main + g_distill * min(1, norm(g_main) * sigma / norm(g_distill))


@pytest.mark.parametrize("epoch", [None, 0, 3])
@pytest.mark.parametrize("passes", ["two", "batched"])
def test_clip_to_main(epoch, passes):
    net = mlp().double()
    x, y = torch.randn(5, 6).double(), torch.tensor([0, 1, 2, 0, 1])
    params = list(net.parameters())
    free = nn.Parameter(torch.ones(3, dtype=torch.float64))
    unused = nn.Parameter(torch.ones(2))
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def losses():
        z = net(x)
        far = 1e3 * ((z - 2) ** 2).mean() if epoch is None else 0.01 * (z[0] ** 2).mean()
        return nn.functional.cross_entropy(z, y), far + (free * z.detach().mean(0)).sum()

    main, distill = losses()
    g_main = torch.autograd.grad(main, params, retain_graph=True)
    g_distill = torch.autograd.grad(distill, params)
    params[0].grad = torch.ones_like(params[0])
    main, distill = losses()
    everything = [*params, unused, frozen]
    clip_to_main(main, distill, everything, free=[free], epoch=epoch, passes=passes)
    for i, (p, a, b) in enumerate(zip(params, g_main, g_distill, strict=True)):
        expected = by_hand(a, b, epoch) + (1.0 if i == 0 else 0.0)
        torch.testing.assert_close(p.grad, expected)
    torch.testing.assert_close(free.grad, net(x).mean(0).detach())
    assert unused.grad is None
    assert frozen.grad is None


def test_clip_gradients_corners():
    one, zero = torch.ones(3), torch.zeros(3)
    nan = torch.tensor([float("nan"), 0, 0])
    inf = torch.tensor([float("inf"), 0, 0])
    pairs = [(one, zero), (zero, one), (None, one), (one, None), (None, None), (one, nan),
             (one, inf), (one.half(), (6e4 * one).half())]  # fmt: skip
    result = clip_gradients([m for m, _ in pairs], [d for _, d in pairs], epoch=None)
    torch.testing.assert_close(result[0], one)
    torch.testing.assert_close(result[1], zero)
    torch.testing.assert_close(result[2], one)
    torch.testing.assert_close(result[3], one)
    assert result[4] is None
    assert not torch.isfinite(result[5]).all()
    assert not torch.isfinite(result[6]).all()
    assert result[7].dtype == torch.float16
    torch.testing.assert_close(result[7], 2 * one.half())


def test_clip_is_the_same_under_a_loss_scale():
    grads = [torch.randn(4), torch.randn(4)]
    plain = clip_gradients([grads[0]], [5 * grads[1]])[0]
    scaled = clip_gradients([1024 * grads[0]], [5 * 1024 * grads[1]])[0]
    torch.testing.assert_close(scaled, 1024 * plain)


def test_unknown_passes():
    w = torch.ones((), requires_grad=True)
    with pytest.raises(ValueError, match="'two' or 'batched', got 'three'"):
        clip_to_main(w * 1, w * 2, [w], passes="three")


def test_ramps():
    assert training.gaussian_ramp(0, 80) == pytest.approx(math.exp(-5))
    assert training.gaussian_ramp(80, 80) == training.gaussian_ramp(0, 0) == 1
    assert training.sigmoid_ramp(0) == 0.5


def test_initialise_from():
    student, source = mlp(1), mlp(2, width=7)
    student.extra = nn.Linear(2, 2)
    student[0] = nn.Linear(6, 7)
    before = student[2].weight.detach().clone()
    source.more = nn.Parameter(torch.ones(1))
    report = initialise_from(student, nn.DataParallel(source))
    assert report.copied == ["0.weight", "0.bias", "2.bias"]
    assert report.mismatched == {"2.weight": ([3, 8], [3, 7])}
    assert report.missing == ["extra.weight", "extra.bias"]
    assert report.unused == ["more"]
    torch.testing.assert_close(student[0].weight, source[0].weight)
    torch.testing.assert_close(student[2].weight, before)


def test_chains():
    calls = []
    nets = training.generations(mlp, lambda net, old: calls.append((net, old)), 3)
    assert calls == [(nets[0], None), (nets[1], nets[0]), (nets[2], nets[1])]
    teacher, calls = mlp(), []
    last = training.assistant_chain(teacher, nets, lambda net, old: calls.append((net, old)))
    assert last is nets[2]
    assert calls == [(nets[0], teacher), (nets[1], nets[0]), (nets[2], nets[1])]


def test_fit_on_logits_learns_and_logs(tmp_path):
    teacher, student = mlp(0), mlp(1)
    fit(teacher, None, None, loader(), epochs=30, progress=False)
    log = tmp_path / "log.csv"
    accuracy = lambda net: (net(data()[:][0]).argmax(1) == data()[:][1]).float().mean()  # noqa: E731
    before = [p.clone() for p in teacher.parameters()]
    history = fit(student, teacher, SoftTarget(), loader(), epochs=20, weight=0.5, log=log,
                  evaluate=accuracy, progress=False)  # fmt: skip
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["distill"] < 0.5 * history[0]["distill"]
    assert history[-1]["accuracy"] > 0.8
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert not teacher.training
    with open(log) as file:
        rows = list(csv.DictReader(file))
    assert [int(r["epoch"]) for r in rows] == list(range(20))
    assert float(rows[-1]["accuracy"]) == history[-1]["accuracy"]
    assert set(rows[0]) == {"epoch", "loss", "distill", "ms", "accuracy"}


class Images(nn.Module):
    """(B, 6) as maps: a stem, a layer, a head."""

    def __init__(self, c):
        super().__init__()
        self.stem, self.act, self.fc = nn.Conv2d(1, c, 1), nn.ReLU(), nn.Linear(6 * c, 3)

    def forward(self, x):
        return self.fc(self.act(self.stem(x.view(-1, 1, 2, 3))).flatten(1))


@pytest.mark.parametrize("clip", [False, True])
def test_fit_on_features_trains_the_connector(clip):
    torch.manual_seed(0)
    teacher, student = Images(4), Images(3)
    method = FitNet((3, 2, 3), (4, 2, 3))
    before = method.regressors[0][0].weight.detach().clone()
    history = fit(student, teacher, method, loader(), epochs=8, clip=clip, progress=False,
                  layers=(["act"], ["act"]))  # fmt: skip
    assert not torch.equal(before, method.regressors[0][0].weight)
    assert history[-1]["distill"] < history[0]["distill"]
    assert history[-1]["loss"] < history[0]["loss"]
    assert not any(m._forward_hooks for m in [*student.modules(), *teacher.modules()])


def test_amp_on_the_cpu():
    student = mlp(1)
    history = fit(student, mlp(0), SoftTarget(), loader(), epochs=6, amp=torch.bfloat16,
                  clip=True, progress=False)  # fmt: skip
    assert history[-1]["loss"] < history[0]["loss"]
    assert student[0].weight.dtype == torch.float32


def test_own_step_and_empty_loader():
    net = mlp()

    def step(batch, epoch):
        return net(batch[0]).square().mean() * (epoch + 1), None

    rows = fit(net, None, None, loader(), epochs=3, step=step, progress=False)
    assert rows[-1]["loss"] < rows[0]["loss"]
    with pytest.raises(ValueError, match="no batches"):
        fit(net, None, None, [], epochs=1, progress=False)


@pytest.mark.parametrize("part", ["task's loss", "loss of Spoilt"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, part, bad):
    """Named by part, epoch and step, before the weights are touched; the good file is kept."""
    path, calls = tmp_path / "run.pt", []

    class Spoilt(SoftTarget):
        def forward(self, student, teacher, target=None):
            calls.append(1)
            wrong = len(calls) == 5 and part != "task's loss"
            return super().forward(student, teacher) * (bad if wrong else 1)

    student, teacher = mlp(1), mlp(0)

    def step(batch, epoch):
        z = student(batch[0])
        spoilt = z * bad if len(calls) == 4 and part == "task's loss" else z
        task = nn.functional.cross_entropy(spoilt, batch[1])
        return task, method(z, teacher(batch[0]))

    method = Spoilt()
    message = rf"fit: the {part} is .* at epoch 1, step 1; .*run\.pt keeps the last good epoch"
    with pytest.raises(FloatingPointError, match=message):
        fit(
            student, teacher, method, loader(), epochs=3, step=step, checkpoint=path, progress=False
        )
    assert len(torch.load(path, weights_only=True)["history"]) == 1
    assert all(p.isfinite().all() for p in student.parameters())
