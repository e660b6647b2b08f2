"""A mean teacher: AveragedModel in fit, its tap apart from the student's, its weights resumed."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kdops import FeatureTap
from kdops.distillers import SimilarityPreserving
from kdops.features import list_layers
from kdops.training import fit, initialise_from

NAMES = ["0", "1"]
DECAY, WEIGHT = 0.7, 0.01


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.3), nn.Linear(4, 2))


def loader():
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 3, generator=g), torch.randint(0, 2, (4,), generator=g))] * 5


def averaged(student):
    """The recipe of docs/training.md."""
    teacher = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    optimizer.register_step_post_hook(lambda *_: teacher.update_parameters(student))
    return teacher, optimizer


def run(epochs, student=None, **options):
    student = student or network()
    teacher, optimizer = averaged(student)
    options |= {"layers": (NAMES, NAMES), "optimizer": optimizer, "weight": WEIGHT}
    rows = fit(student, teacher, SimilarityPreserving(), loader(), epochs=epochs, progress=False,
               **options)  # fmt: skip
    return student, teacher, [(row["loss"], row["distill"]) for row in rows]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_against_a_loop_by_hand(accumulate):
    """The teacher is in evaluation mode, behind the student, and updated once a step."""
    student, teacher, _ = run(1, accumulate=accumulate)
    ours, mean = network(), network().eval()
    torch.manual_seed(0)
    network()  # the random state that run left to fit
    steps, batches = 0, loader()
    optimizer = torch.optim.SGD(ours.parameters(), 0.1)
    for i, (x, y) in enumerate(batches, 1):
        first, theirs = ours[0](x), mean[0](x).detach()
        h = ours[1](first)
        extra = SimilarityPreserving()([first, h], [theirs, mean[1](theirs).detach()])
        loss = nn.functional.cross_entropy(ours[3](ours[2](h)), y) + WEIGHT * extra
        (loss / accumulate).backward()
        if i % accumulate and i < len(batches):
            continue
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for p, q in zip(mean.parameters(), ours.parameters(), strict=True):
                p.copy_(DECAY * p + (1 - DECAY) * q if steps else q)
        steps += 1
    assert teacher.n_averaged == steps
    for net, hand in ((student, ours), (teacher.module, mean)):
        for p, q in zip(net.parameters(), hand.parameters(), strict=True):
            torch.testing.assert_close(p, q)
    assert not torch.equal(student[0].weight, teacher.module[0].weight)


def test_each_tap_on_its_own_model():
    """Tapped by the student's names, and also where the student was tapped before the copy."""
    student, x = network(), torch.randn(4, 3)
    with FeatureTap(student, NAMES) as s:
        teacher = averaged(student)[0]
        with torch.no_grad():
            teacher.module[0].bias += 1
        with FeatureTap(teacher, NAMES) as t:
            student(x)
            with torch.no_grad():
                teacher.eval()(x)
            mine, theirs = s["0"], t["0"]
            torch.testing.assert_close(theirs, mine + 1)
            assert mine.requires_grad
            assert not theirs.requires_grad
    assert [layer.name for layer in list_layers(teacher, x)] == ["", "0", "1", "2", "3"]
    assert not initialise_from(network(), teacher).unused
    torch.testing.assert_close(teacher.module[0].bias, student[0].bias + 1)


def test_a_resumed_run_has_the_same_curve(tmp_path):
    student, teacher, whole = run(3)
    file = tmp_path / "run.pt"
    run(1, checkpoint=file)
    again, mean, rows = run(3, checkpoint=file)
    assert rows == whole
    assert mean.n_averaged == teacher.n_averaged == 15
    for net, other in ((student, again), (teacher, mean)):
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)


def test_the_recipe_of_the_page():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    code = page.partition("(EMA)")[2].partition("```python\n")[2].partition("```")[0]
    names = {
        "student": network(),
        "method": SimilarityPreserving(),
        "loader": loader(),
        "names": NAMES,
    }
    known = {**names, "torch": torch, "fit": fit}
    exec(code.replace("epochs=100", "epochs=2"), known)
    assert known["teacher"].n_averaged == 10
