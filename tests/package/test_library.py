"""The compiled library: none, an older one, another; its instruction sets; what users are told."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.new_process import finished, in_new_process, run_python

import kdops
from kdops import _library

CSRC = Path(__file__).parents[2] / "csrc"


def test_without_a_binary_the_reference_serves_and_says_so_once():
    hide_the_binary = (
        "import pathlib; real = pathlib.Path.is_file;"
        "pathlib.Path.is_file = lambda self: self.name != '_C.abi3.so' and real(self);"
    )
    run = in_new_process(
        hide_the_binary + "import torch, kdops; x = torch.ones(1, 2, 3); kdops.gram(x);"
        "print(kdops.gram(x).tolist(), kdops.build_info()['native'])"
    )
    assert run.returncode == 0, run.stderr
    assert "[[[1.0, 1.0], [1.0, 1.0]]]" in run.stdout
    assert "no compiled kernels" in run.stdout
    assert run.stderr.count("the slower reference implementation serves") == 1


def copied_checkout(folder, library):
    """kdops/ and csrc/ with another compiled library in the place of theirs."""
    package = Path(kdops.__file__).parent
    without = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(package, folder / "kdops", ignore=without)
    shutil.copytree(CSRC, folder / "csrc")
    (folder / "kdops" / "_C.abi3.so").symlink_to(library)
    return folder


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for a library without ops")
def test_a_library_without_the_ops_is_named_and_the_reference_serves(tmp_path):
    info = f'{{\\"kdops\\": \\"{kdops.__version__}\\", \\"cuda\\": \\"\\"}}'
    source = f'extern "C" const char* kdops_build_info() {{ return "{info}"; }}'
    command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(tmp_path / "old.so")]
    subprocess.run(command, input=source, text=True, check=True)
    root = copied_checkout(tmp_path, tmp_path / "old.so")
    run = in_new_process("import torch, kdops; print(kdops.gram(torch.ones(1, 2, 3)))", root)
    assert run.returncode == 0, run.stderr
    assert "[1., 1.]" in run.stdout
    assert "is older than its sources (it has no op align_vectors)" in run.stderr
    assert "run `pip install .` or `make build` again" in run.stderr


def test_a_library_with_another_schema_is_named_by_info(tmp_path):
    root = copied_checkout(tmp_path, _library._find())
    source = root / "csrc" / "svd" / "svd.cpp"
    source.write_text(source.read_text().replace("svd_topk(Tensor A, int k", "svd_topk(Tensor A"))
    run = in_new_process("from kdops.__main__ import _info; _info([])", root)
    assert run.returncode == 0, run.stderr
    assert "(its op svd_topk takes or returns something else)" in run.stdout
    assert "svd_topk                cpu   reference (" in run.stdout


@pytest.mark.skipif(not CSRC.is_dir(), reason="not in a checkout")
def test_every_op_of_the_library_is_compared():
    """A definition that the search in csrc/ overlooks would never be found stale."""
    of_library = {n for n in torch._C._dispatch_get_all_op_names() if n.startswith("kdops::")}
    assert {f"kdops::{s.partition('(')[0]}" for s in _library._schemas(CSRC)} == of_library
    assert _library._difference(CSRC) is None


def test_an_installed_library_has_no_sources_to_be_older_than(tmp_path):
    assert _library._difference(tmp_path / "csrc") is None


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_narrower_instruction_sets_agree(isa):
    """Each compiled instruction set gives the same numbers to rounding."""
    if isa not in kdops.build_info()["instruction_sets"].split(","):
        pytest.skip(f"this build has no {isa} kernels")
    code = (
        "import torch, kdops; torch.manual_seed(3); x = torch.randn(3, 17, 9, 21);"
        "y = torch.randn(3, 5, 9, 21).to(memory_format=torch.channels_last);"
        "e = lambda a, b: (a.double() - b).abs().max().item();"
        "r = lambda a, b: a.flatten(2).double() @ b.flatten(2).double().mT / 189;"
        "h = x.half();"
        "print(kdops.build_info()['active_instruction_set'],"
        " max(e(kdops.gram(x, y), r(x, y)), e(kdops.gram(x), r(x, x))),"
        " e(kdops.gram(h).float(), r(h, h)))"
    )
    run = in_new_process(code, KDOPS_ISA=isa)
    assert run.returncode == 0, run.stderr
    active, error, half_error = run.stdout.split()
    if active != isa:
        pytest.skip(f"this processor has no {isa}")
    assert float(error) < 1e-6
    assert float(half_error) < 2e-3


def command(*arguments):
    return finished([sys.executable, "-m", "kdops", *arguments])


def test_info_command():
    short, full = command("info"), command("info", "--all")
    assert (short.returncode, full.returncode) == (0, 0), short.stderr + full.stderr
    active = kdops.build_info()["active_instruction_set"]
    first = short.stdout.splitlines()
    assert first[0].startswith(f"kdops {kdops.__version__}, torch {torch.__version__}")
    assert first[1].startswith(f"CPU     {active} kernels")
    assert re.search(r"^gram +cpu +native$", short.stdout, re.M)
    assert bool(re.search(r"^gram +cuda", short.stdout, re.M)) == torch.cuda.is_available()
    assert "active_instruction_set" in full.stdout
    assert "gram on cpu" in full.stdout
    assert "gram on cuda" in full.stdout


def test_a_reader_that_stops_early_sees_no_traceback():
    """As in `python -m kdops info | head -1`."""
    line = [sys.executable, "-m", "kdops", "info"]
    run = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdout.close()
    errors = run.stderr.read()
    assert (errors, run.wait(timeout=600)) == (b"", 1)


def test_the_command_alone_prints_help():
    alone = command()
    assert alone.returncode == 0
    assert all(name in alone.stdout for name in ("info", "demo", "bench"))


def test_bench_outside_a_checkout_says_what_it_needs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert importlib.import_module("kdops.__main__")._bench([]) == 2
    assert "source checkout" in capsys.readouterr().err


def test_build_info_is_honest():
    info = kdops.build_info()
    assert info["native"] == "yes"
    assert info["torch"] == torch.__version__
    assert _library.has_cuda_kernels() == bool(info["cuda"])


def test_a_new_process_has_the_package_of_this_one(tmp_path, monkeypatch):
    """Under the sanitizers it had the checkout's own, and found nothing."""
    (tmp_path / "kdops.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_python("import kdops; print(kdops.__file__)").strip() == str(tmp_path / "kdops.py")
