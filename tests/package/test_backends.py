"""Backends: the choice, the forced choice, and what users are told."""

import contextvars
import threading
from contextlib import nullcontext

import pytest
import torch
from support.new_process import in_new_process

import kdops
from kdops import _backends, _library
from kdops.ops.gram import registration

MAPS = torch.randn(2, 3, 4, 4)


def test_native_serves_and_reference_agrees():
    assert _backends.choose("gram", "cpu", torch.float32, 2, 3, 3, 16) == "native"
    with kdops.backend("reference"):
        assert _backends.choose("gram", "cpu", torch.float32, 2, 3, 3, 16) == "reference"
        expected = kdops.gram(MAPS)
    torch.testing.assert_close(kdops.gram(MAPS), expected)


def test_forced_backend_that_cannot_run_says_why():
    with kdops.backend("triton"), pytest.raises(ValueError, match="'triton' was asked for, but"):
        kdops.gram(MAPS)


def test_backend_restores_after_an_error():
    with pytest.raises(RuntimeError, match="inside"), kdops.backend("reference"):
        raise RuntimeError("inside")
    assert _backends.choose("gram", "cpu", torch.float32, 1, 1, 1, 1) == "native"


def test_what_is_remembered_gives_way(capsys):
    """A call remembers which backend served its problem, until something else is said."""
    x = torch.empty(0)
    problem = ("gram", x, 2, 3, 3, 16)
    assert _backends.choose_for(*problem) == "native"
    with kdops.backend("reference"):
        assert _backends.choose_for(*problem) == "reference"
    kdops.explain(lambda: _backends.choose_for(*problem))
    assert "sizes (2, 3, 3, 16)" in capsys.readouterr().out
    assert _backends.choose_for(*problem) == "native"


def test_registering_again_forgets():
    x = torch.empty(0)
    try:
        for reason, chosen in ((None, "native"), ("it is closed", "reference")):
            _backends.register("made up", native=lambda *problem, reason=reason: reason)
            assert _backends.choose_for("made up", x, 1) == chosen
    finally:
        del _backends._ladders["made up"]


def test_sizes_that_are_symbols_are_not_remembered():
    class Symbol(int):
        __hash__ = None

    assert _backends.choose_for("gram", torch.empty(0), *[Symbol(3)] * 4) == "native"


def test_unknown_backend():
    with pytest.raises(ValueError, match="expected one of native, triton, reference, got 'cuda'"):
        kdops.backend("cuda")


def test_explain_prints_the_ladder(capsys):
    kdops.explain(kdops.gram, MAPS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "gram on cpu, float32, sizes (2, 3, 3, 16):"
    assert lines[1].split() == ["native", "serves"]


def test_explain_of_something_else(capsys):
    kdops.explain(torch.relu, MAPS)
    assert "called no kdops op" in capsys.readouterr().out


def test_other_devices_get_a_reason():
    assert "not for mps" in _backends.obstacle("gram", "native", "mps", torch.float32, 1, 1, 1, 1)


TRITON = ["attention_map", "attention_loss", "pairwise_angle"]
TRITON += ["gram_anchoring_loss", "cka_loss", "similarity_kl", "pkt"]


@pytest.mark.parametrize("op", TRITON)
def test_ops_whose_gpu_kernel_is_triton(op, monkeypatch):
    problem = (torch.float32, 8, 8, 8)
    assert "the GPU kernel is Triton's" in _backends.obstacle(op, "native", "cuda", *problem)
    assert "run on cuda, not on cpu" in _backends.obstacle(op, "triton", "cpu", *problem)
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"kdops::{op}", "CUDA")
    for found, chosen in (("a spec", "triton"), (None, "reference")):
        monkeypatch.setattr(_backends, "find_spec", lambda name, found=found: found)
        assert _backends.choose(op, "cuda", *problem) == chosen
        assert _backends.choose(op, "cpu", *problem) == "native"


@pytest.mark.parametrize("op", ["gram_loss", "nst_loss"])
def test_gram_losses_have_cuda_kernels(op, monkeypatch):
    problem = ("cuda", torch.float32, 8, 64, 64, 256)
    for compiled, chosen in ((True, "native"), (False, "reference")):
        monkeypatch.setattr(_library, "has_cuda_kernels", lambda compiled=compiled: compiled)
        assert _backends.choose(op, *problem) == chosen
    assert "without CUDA kernels" in _backends.obstacle(op, "native", *problem)


@pytest.mark.parametrize(
    ("binaries", "ptx", "capability", "served"),
    [
        ("80", "80", (8, 9), True),  # by the binary: the same major version
        ("80", "80", (12, 0), True),  # by translation
        ("80", "80", (7, 5), False),
        ("80,90", "", (10, 0), False),
        ("86", "", (8, 0), False),
    ],
)
def test_a_gpu_without_an_image_gets_a_reason(monkeypatch, binaries, ptx, capability, served):
    """ "no kernel image is available for execution on the device" came from inside CUDA."""
    info = {"cuda": "13.0", "cuda_archs": binaries, "cuda_ptx": ptx}
    monkeypatch.setattr(_library, "_native_info", lambda: info)
    monkeypatch.setattr(_library, "has_cuda_kernels", lambda: True)
    monkeypatch.setattr(_library, "unserved_gpu", _library.unserved_gpu.__wrapped__)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    problem = ("cuda", torch.float32, 8, 64, 64, 256)
    assert _backends.choose("gram_loss", *problem) == ("native" if served else "reference")
    if not served:
        reason = _backends.obstacle("gram_loss", "native", *problem)
        assert f"compute capability {capability[0]}.{capability[1]}" in reason
        assert f"TORCH_CUDA_ARCH_LIST={capability[0]}.{capability[1]}" in reason


@pytest.mark.skipif(not _library.has_cuda_kernels(), reason="this install has no CUDA kernels")
@pytest.mark.parametrize("op", ["gram", "gram_backward", "gram_loss", "nst_loss"])
def test_gram_kernels_are_registered_for_cuda(op):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"kdops::{op}", "CUDA")


def test_triton_launchers_select_the_device_of_their_first_argument(monkeypatch):
    launch, x = _backends.triton_launcher("torch", "neg"), torch.ones(2)
    assert torch.equal(launch(x), -x)  # on a CPU tensor, as in the interpreter, nothing is selected
    seen = []
    monkeypatch.setattr(
        torch.cuda, "device_of", lambda tensor: seen.append(tensor) or nullcontext()
    )
    launch(x)
    assert seen[0] is x


def test_environment_forces_and_refuses():
    ask = "import kdops, torch; kdops.explain(kdops.gram, torch.ones(1, 2, 3))"
    forced = in_new_process(
        "import torch; from kdops import _backends;"
        "print(_backends.choose('gram', 'cpu', torch.float32, 1, 1, 1, 1))",
        KDOPS_BACKEND="reference",
    )
    assert forced.stdout.strip() == "reference"
    refused = in_new_process(ask, KDOPS_BACKEND="fast")
    assert "KDOPS_BACKEND: expected one of" in refused.stderr


@pytest.mark.parametrize("multiplies", [False, True])
def test_bfloat16_goes_where_it_is_fast(monkeypatch, multiplies):
    """Widening loses against a processor that multiplies bfloat16 itself."""
    monkeypatch.setattr(registration, "_MULTIPLIES_BFLOAT16", multiplies)
    chosen = [
        _backends.choose("gram", "cpu", dtype, 8, 64, 64, 256)
        for dtype in (torch.bfloat16, torch.float16, torch.float32)
    ]
    assert chosen == ["reference" if multiplies else "native", "native", "native"]


def forced_in(context_of):
    """What a call sees where `context_of` runs it."""
    seen = []
    context_of(lambda: seen.append(_backends.forced()))
    return seen[0]


def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_blocks_may_end_in_any_order_and_nest_in_themselves():
    a, b = kdops.backend("reference"), kdops.backend("native")
    a.__enter__()
    b.__enter__()
    a.__exit__(None, None, None)
    assert _backends.forced() == "native"
    b.__exit__(None, None, None)
    assert _backends.forced() is None
    with a:
        with a:
            pass
        assert _backends.forced() == "reference"
    assert _backends.forced() is None


def test_a_thread_and_a_task_see_their_own_backend():
    with kdops.backend("reference"):
        assert forced_in(in_a_thread) is None
        assert forced_in(contextvars.copy_context().run) == "reference"


def test_explain_leaves_other_threads_alone(capsys):
    kdops.explain(lambda: in_a_thread(lambda: kdops.gram(MAPS)))
    assert "called no kdops op" in capsys.readouterr().out


def test_a_compiled_function_follows_the_backend_of_its_thread():
    targets = []

    def count(module, inputs):
        targets.append({str(node.target) for node in module.graph.nodes})
        return module

    torch._dynamo.reset()
    compiled = torch.compile(lambda x: kdops.gram(x), backend=count, fullgraph=True)
    compiled(MAPS)
    with kdops.backend("reference"):
        compiled(MAPS)
        in_a_thread(lambda: compiled(MAPS))
    compiled(MAPS)
    assert ["kdops.gram.default" in names for names in targets] == [True, False]


def test_a_block_inside_a_compiled_function():
    def both(x):
        with kdops.backend("reference"):
            first = _backends.choose_for("gram", x, 2, 3, 3, 16)
        return x + (first == "reference") * (_backends.forced() is None)

    torch._dynamo.reset()
    compiled = torch.compile(both, backend="eager", fullgraph=True)
    assert torch.equal(compiled(MAPS), MAPS + 1)
    assert _backends.forced() is None
