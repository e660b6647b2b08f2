"""The checkpoints of fit: resumed, interrupted, damaged, of weights that are not finite."""

import pytest
import torch
from support.small_net import loader, mlp
from torch import nn

from kdops.distillers import SoftTarget
from kdops.training import fit


class Recorder:
    def __init__(self):
        self.rows = []

    def add_scalar(self, name, value, step):
        self.rows.append((name, value, step))


@pytest.mark.parametrize("own_generator", [False, True])
def test_resume_gives_the_same_curve(tmp_path, own_generator):
    def run(epochs, path, log=None):
        """A fresh process's worth of objects; dropout makes the random state matter."""
        torch.manual_seed(3)
        student, teacher = mlp(1), mlp(0)
        student.insert(1, nn.Dropout(0.3))
        method = SoftTarget()
        optimizer = torch.optim.SGD(student.parameters(), 0.05, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        batches = loader(torch.Generator().manual_seed(8) if own_generator else None)
        rows = fit(student, teacher, method, batches, epochs=epochs, optimizer=optimizer,
                   scheduler=scheduler, checkpoint=path, log=log, progress=False)  # fmt: skip
        return [(r["loss"], r["distill"]) for r in rows], student

    whole, net = run(6, None)
    path, log = tmp_path / "run.pt", Recorder()
    part, _ = run(3, path)
    assert part == whole[:3]
    torch.manual_seed(99)
    resumed, again = run(6, path, log)
    assert resumed == whole
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    assert ("loss", whole[3][0], 3) in log.rows
    state = torch.load(path, weights_only=True)
    del state["method"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"run\.pt holds .*'student'"):
        run(9, path)


def test_interrupted_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    fit(mlp(), None, None, loader(), epochs=1, checkpoint=path, progress=False)
    before = path.read_bytes()

    def broken(state, target):
        with open(target, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        fit(mlp(), None, None, loader(), epochs=2, checkpoint=path, progress=False)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    path, net = tmp_path / "run.pt", mlp()

    def run(epochs):
        fit(net, None, None, [next(iter(loader()))], epochs=epochs, checkpoint=path, progress=False)

    run(1)
    before = path.read_bytes()
    net[2].weight.register_hook(lambda g: g * float("inf"))
    with pytest.raises(
        FloatingPointError, match=r"student's 2\.weight is not finite after epoch 1"
    ):
        run(2)
    assert path.read_bytes() == before


def test_damaged_and_foreign_checkpoints_name_the_file(tmp_path):
    path = tmp_path / "run.pt"

    def run(net):
        fit(net, None, None, loader(), epochs=2, checkpoint=path, progress=False)

    run(mlp())
    good = path.read_bytes()
    for content in (b"", good[: len(good) // 2], good[:10], b"a text, no checkpoint at all"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"run\.pt is no checkpoint, or is cut short"):
            run(mlp())
        assert path.read_bytes() == content
    for other in ([1, 2], mlp().state_dict(), {"student": {}}):
        torch.save(other, path)
        with pytest.raises(ValueError, match=r"run\.pt holds .*, not \['student'"):
            run(mlp())
    path.write_bytes(good)
    with pytest.raises(
        ValueError, match=r"run\.pt belongs to another run, its student does not fit"
    ):
        run(mlp(width=9))
