"""The examples that need the libraries."""

import importlib
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _from_examples(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))


def test_hugging_face():
    pytest.importorskip("transformers")
    history = importlib.import_module("hf_trainer").main()
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["distill"] < history[0]["distill"]


def test_lightning(tmp_path, monkeypatch):
    pytest.importorskip("lightning.pytorch")
    monkeypatch.chdir(tmp_path)
    task, distill = importlib.import_module("lightning_resnet").main()
    assert task < 2.3  # ten classes by chance: ln 10
    assert distill > 0
