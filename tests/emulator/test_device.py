"""The device as torch sees it, and the plugin: run where that is loaded (`make emulator`)."""

from __future__ import annotations

import ctypes
import sys

import pytest
import torch

import kdops
from tests.emulator import library

plugin = sys.modules.get("tests.emulator.plugin")
pytestmark = pytest.mark.skipif(plugin is None, reason="the emulated device is not loaded")


def test_views_share_memory_with_their_base():
    x = torch.zeros(4, 6, device="cuda")
    x[1:, ::2].add_(torch.ones(3, 3, device="cuda"))
    x.mT[0].fill_(5)
    expected = torch.zeros(4, 6)
    expected[1:, ::2] += 1
    expected[:, 0] = 5
    assert torch.equal(x.cpu(), expected)
    assert x.view(24).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_operators_write_where_they_are_told():
    a, out = torch.arange(3.0, device="cuda"), torch.empty(0, device="cuda")
    torch.add(a, 1, out=out)
    assert out.tolist() == [1, 2, 3]
    assert out.device == a.device
    assert a.resize_(5)[:3].tolist() == [0, 1, 2]


def test_results_of_another_device():
    x = torch.randn(5, device="cuda")
    assert x.cpu().device.type == "cpu"
    assert x.double().device.type == "cuda"
    assert x.to("cpu", torch.float64).device.type == "cpu"
    assert torch.zeros(2, device="cuda")._is_zerotensor() is False
    assert x.sum().item() == pytest.approx(x.cpu().sum().item())


def test_memory_is_counted():
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    x = torch.empty(1000, device="cuda")
    x = x + 1
    assert torch.cuda.memory_allocated() == before + 4000
    assert torch.cuda.max_memory_allocated() == before + 8000


def test_autograd_runs_on_the_device():
    x = torch.randn(4, 3, 5, device="cuda", requires_grad=True)
    with kdops.backend("native"):
        kdops.gram(x).square().sum().backward()
    y = x.detach().cpu().requires_grad_()
    kdops.gram(y).square().sum().backward()
    assert torch.allclose(x.grad.cpu(), y.grad, rtol=1e-5)


def test_every_kernel_is_known_to_the_interpreter():
    count = ctypes.c_uint64()
    assert plugin.runtime.emulator_translate_all(ctypes.byref(count)) == b""
    assert count.value > 50


def test_a_kernel_that_is_not_ours_is_seen(monkeypatch):
    assert plugin.missing_kernels() == []
    session = plugin.session
    monkeypatch.setitem(session.BEFORE, "gram", session.cuda_kernels("gram"))
    assert plugin.missing_kernels() == ["gram"]


def test_an_objection_fails_a_test_that_expects_an_exception():
    call = plugin.pytest_runtest_call(None)
    next(call)
    library.faults().write_before(None)
    with pytest.raises(pytest.fail.Exception, match="out of bounds"):
        call.send(None)
