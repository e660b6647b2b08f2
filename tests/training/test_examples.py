"""The examples run, and do what they say."""

import importlib
import os
import sys
from pathlib import Path

import pytest
import torch
from support.new_process import finished

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _from_examples(monkeypatch, one_thread):
    monkeypatch.syspath_prepend(str(EXAMPLES))


def run(name, *args):
    return importlib.import_module(name).main(*args)


def test_kdsvd_resnet():
    losses = run("kdsvd_resnet")
    assert losses[-1] < losses[0]


def test_the_first_example_of_the_readme():
    readme = (EXAMPLES.parent / "README.md").read_text()
    code = readme.partition("```python\n")[2].partition("```")[0]
    resnet = importlib.import_module("resnet").resnet
    torch.manual_seed(0)
    student, teacher = resnet(depth=1), resnet(depth=2)
    before = student.layer1[0].conv1.weight.detach().clone()
    loader = [(torch.randn(4, 3, 32, 32), torch.arange(4))]
    exec(code, {"student": student, "teacher": teacher, "loader": loader})
    assert not torch.equal(student.layer1[0].conv1.weight, before)


@pytest.mark.parametrize("name", ["vit_tokens", "bert_masks"])
def test_tokens(name):
    history = run(name)
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["distill"] < history[0]["distill"]


def test_gram_anchoring():
    losses = run("vit_gram_anchoring")
    assert losses[-1] < 0.6 * losses[0]


def test_custom_distiller():
    losses = run("custom_distiller")
    assert losses[-1] < 0.5 * losses[0]


def test_replace_zoo_rkd(capsys):
    usual, ours = run("replace_zoo_rkd", 24, 16)
    assert ours == pytest.approx(usual, rel=1e-4)
    norms = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[-2:]]
    assert norms[1] < 100 < norms[0]


def test_replace_zoo_loss():
    found = run("replace_zoo_loss", torch.float64)
    assert set(found) == {"DKD", "DIST", "CC", "CWD", "PKD"}
    assert max(gap for gaps in found.values() for gap in gaps) < 1e-9


def test_polar():
    losses, before, after = run("polar")
    assert losses[-1] < 0.1 * losses[0]
    assert before.max() < 1e-3
    torch.testing.assert_close(after, torch.ones_like(after))


@pytest.mark.slow
def test_mixed_precision():
    history = run("mixed_precision")
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("global_batch", 1e-5), ("ddp", 0)])
def test_two_processes_under_torchrun(name, most):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "--master-port", "0", "--standalone", str(EXAMPLES / f"{name}.py")]  # fmt: skip
    path = os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    done = finished(command, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("by ")[1].split()[0]) <= most
