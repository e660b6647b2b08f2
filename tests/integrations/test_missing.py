"""What a plug says where its library is not: which one, and the extra that brings it."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("transformers", "transformers"),
        ("lightning", "lightning.pytorch"),
        ("modelopt", "modelopt.torch.distill.loss_balancers"),
        ("torchdistill", "torchdistill.losses.registry"),
    ],
)
def test_a_library_that_is_not_installed(module, library, monkeypatch):
    name = f"kdops.integrations.{module}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{name} needs .*: pip install 'kdops\[integrations\]'"):
        importlib.import_module(name)
