"""DistillationModule in Lightning's Trainer: a step as in fit, save and resume, two processes."""

import pytest
import torch
from torch import nn

import kdops.distillers as kd
from kdops.training import fit

lightning = pytest.importorskip("lightning.pytorch")

from kdops.integrations.lightning import DistillationModule  # noqa: E402

LAYERS = (["0", "2"], ["0", "2"])


def net(width):
    maps = [nn.Conv2d(3, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, width, 3), nn.Tanh()]
    return nn.Sequential(*maps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def parts():
    torch.manual_seed(0)
    student, teacher = net(4), net(6)
    return (
        student,
        teacher,
        kd.WeightedSum({"kd": kd.SoftTarget(), "svd": kd.KDSVD([4, 4], [6, 6])}),
    )


def batches(count=4):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4 * count, 3, 8, 8, generator=generator)
    data = torch.utils.data.TensorDataset(images, torch.arange(4 * count) % 5)
    return torch.utils.data.DataLoader(data, batch_size=4)


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.1, 0.9)


def module(nets, **options):
    return DistillationModule(*nets, layers=LAYERS, optimizer=sgd, weight=0.5, **options)


def trainer(folder, epochs=2, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, default_root_dir=folder, **quiet,
        **{"devices": 1, **options},
    )  # fmt: skip


def assert_equal(*pairs):
    for a, b in pairs:
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
            torch.testing.assert_close(x, y)


def test_the_same_curve_as_fit(tmp_path):
    ours, theirs = parts(), parts()
    optimizer = sgd([*ours[0].parameters(), *ours[2].parameters()])
    fit(*ours, batches(), epochs=2, layers=LAYERS, optimizer=optimizer, weight=0.5, progress=False)
    run = module(theirs)
    trainer(tmp_path, enable_checkpointing=False).fit(run, batches())
    assert_equal((ours[0], theirs[0]), (ours[2], theirs[2]))
    assert not any(m._forward_hooks for m in theirs[0].modules())
    with pytest.raises(RuntimeError, match=r"the taps are open while Trainer\.fit runs"):
        run.distillation(None, None)


def test_save_and_resume(tmp_path):
    whole = parts()
    trainer(tmp_path / "whole").fit(module(whole), batches())
    first = parts()
    run = trainer(tmp_path / "first", epochs=1)
    run.fit(module(first), batches())
    path = run.checkpoint_callback.best_model_path
    state = torch.load(path, weights_only=True)["state_dict"]
    assert {name.partition(".")[0] for name in state} == {"student", "method"}
    again = parts()
    for p in again[2].parameters():
        nn.init.zeros_(p)
    trainer(tmp_path / "again").fit(module(again), batches(), ckpt_path=path)
    assert_equal((whole[0], again[0]), (whole[2], again[2]))


class Own(DistillationModule):
    def training_step(self, batch, batch_idx):
        images, target = batch
        logits = self.student(images)
        task = nn.functional.cross_entropy(logits, target)
        return task + self.weight * self.distillation(batch, logits)


def test_a_training_step_of_your_own(tmp_path):
    ours, theirs = parts(), parts()
    trainer(tmp_path, enable_checkpointing=False).fit(module(ours), batches())
    run = Own(*theirs, layers=LAYERS, optimizer=sgd, weight=0.5)
    trainer(tmp_path, enable_checkpointing=False).fit(run, batches())
    assert_equal((ours[0], theirs[0]), (ours[2], theirs[2]))


class Halves(DistillationModule):
    def train_dataloader(self):
        data = batches().dataset
        sampler = torch.utils.data.DistributedSampler(data, shuffle=False)
        return torch.utils.data.DataLoader(data, batch_size=2, sampler=sampler)


def test_two_processes_are_one_with_both_halves(tmp_path):
    ours, theirs = parts(), parts()
    trainer(tmp_path, enable_checkpointing=False).fit(module(ours), batches())
    options = {"devices": 2, "strategy": "ddp_fork", "use_distributed_sampler": False}
    run = Halves(*theirs, layers=LAYERS, optimizer=sgd, weight=0.5)
    trainer(tmp_path, enable_checkpointing=False, **options).fit(run)
    assert_equal((ours[0], theirs[0]), (ours[2], theirs[2]))
