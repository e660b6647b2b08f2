"""setup.py's decisions, and what it packs. Compiling itself is CI's install."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from support.new_process import finished

from kdops import _library

ROOT = Path(__file__).parents[2]


def setup_py(*arguments, **environment):
    """Runs setup.py in this interpreter's environment; build products go nowhere."""
    command = [sys.executable, "setup.py", *arguments]
    return finished(command, cwd=ROOT, env=os.environ | environment)


def test_pure_python_install_says_why():
    run = setup_py("--version", KDOPS_NATIVE="0")
    assert "pure-Python install, the reference implementation will serve (KDOPS_NATIVE=0)" in (
        run.stderr
    )
    assert run.stdout.strip().endswith("0.1.0")


def test_no_compiler_falls_back_to_python(tmp_path):
    run = setup_py("--version", PATH=str(tmp_path), CXX="no-such-compiler")
    assert "(no C++ compiler found)" in run.stderr


def test_wrong_torch_dir_is_refused(tmp_path):
    run = setup_py("--version", KDOPS_TORCH_DIR=str(tmp_path))
    assert run.returncode != 0
    assert "holds no torch package" in run.stderr


def test_old_torch_is_named(tmp_path):
    (tmp_path / "version.py").write_text("__version__ = '2.9.1+cpu'\n")
    run = setup_py("--version", KDOPS_TORCH_DIR=str(tmp_path))
    assert "torch 2.9.1+cpu is older than 2.10" in run.stderr


CMAKE = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
if [ "$1" = --build ]; then touch "$2/_C.abi3.so"; fi
"""


def stand_in(program, text):
    program.parent.mkdir()
    program.write_text(text)
    program.chmod(0o755)
    return program


def put_first(monkeypatch, program):
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_changed_settings_start_the_configuration_afresh(tmp_path, monkeypatch):
    """CMake kept the architectures of the first build, and the ninja of a removed environment."""
    put_first(monkeypatch, stand_in(tmp_path / "tools/cmake", CMAKE))

    def starts_afresh(**environment):
        (tmp_path / "tools/calls").unlink(missing_ok=True)
        folders = ("--build-temp", str(tmp_path / "build"), "--build-lib", str(tmp_path / "lib"))
        run = setup_py("build_ext", *folders, CXX="sh", KDOPS_NATIVE="1", **environment)
        assert run.returncode == 0, run.stderr
        return "--fresh" in (tmp_path / "tools/calls").read_text().splitlines()[0]

    assert starts_afresh(TORCH_CUDA_ARCH_LIST="8.0")
    assert not starts_afresh(TORCH_CUDA_ARCH_LIST="8.0")
    assert starts_afresh(TORCH_CUDA_ARCH_LIST="9.0")
    put_first(monkeypatch, stand_in(tmp_path / "other/ninja", "#!/bin/sh\n"))
    assert starts_afresh(TORCH_CUDA_ARCH_LIST="9.0")


def tracked_files():
    """What git tracks and is here; none where this is no repository, or somebody else's."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return set()
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    return {name for name in run.stdout.splitlines() if (ROOT / name).exists()}


def test_the_sdist_holds_what_an_install_compiles(tmp_path):
    run = setup_py(
        *("egg_info", "--egg-base", str(tmp_path), "sdist", "--dist-dir", str(tmp_path)),
        KDOPS_NATIVE="0",
    )
    assert run.returncode == 0, run.stderr
    (archive,) = tmp_path.glob("kdops-*.tar.gz")
    with tarfile.open(archive) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
    folders = ("csrc", "cmake", "kdops", "tests", "benchmarks", "examples")
    wanted = {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".h", ".cuh", ".cu", ".cpp", ".cmake", ".py", ".typed")
    }
    wanted |= {"setup.py", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"}
    assert wanted - held == set()
    assert not [name for name in held if name.endswith(".so")]
    left_out = {name for name in tracked_files() - held if not name.startswith(".github/")}
    of_the_repository = {".clang-format", ".gitignore", ".pre-commit-config.yaml"}
    assert left_out <= of_the_repository


def test_a_wheel_serves_every_python(tmp_path):
    run = setup_py(
        *("egg_info", "--egg-base", str(tmp_path), "build", "--build-base", str(tmp_path)),
        *("bdist_wheel", "--dist-dir", str(tmp_path)),
        KDOPS_NATIVE="0",
    )
    assert run.returncode == 0, run.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.split("-")[2:4] == ["py3", "none"]


@pytest.mark.skipif(sys.platform != "linux", reason="tags of Linux")
@pytest.mark.parametrize(("glibc", "platform"), [("", "linux"), ("2.28", "manylinux_2_28")])
def test_the_tag_is_of_the_glibc_that_was_asked_for(tmp_path, monkeypatch, glibc, platform):
    put_first(monkeypatch, stand_in(tmp_path / "tools/cmake", CMAKE))
    run = setup_py(
        *("egg_info", "--egg-base", str(tmp_path), "build", "--build-base", str(tmp_path)),
        *("bdist_wheel", "--dist-dir", str(tmp_path)),
        **{"CXX": "sh", "KDOPS_NATIVE": "1", "KDOPS_GLIBC": glibc},
    )
    assert run.returncode == 0, run.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith(f"-py3-none-{platform}_{os.uname().machine}.whl")
    configured = (tmp_path / "tools/calls").read_text().splitlines()[0]
    assert f"-DKDOPS_GLIBC={glibc}" in configured.split()


def test_setup_is_small_and_never_imports_torch():
    source = (ROOT / "setup.py").read_text()
    assert len(source.splitlines()) < 150
    assert "import torch" not in source


def test_no_test_folder_shadows_a_package():
    """pytest puts tests/ on the path: a folder named like a package would be imported for it."""
    folders = {folder.name for folder in (ROOT / "tests").iterdir() if folder.is_dir()}
    assert not folders & {"triton", "torch", "numpy", "kdops", "benchmarks"}


def test_one_version():
    assert f'version = "{_library.VERSION}"' in (ROOT / "pyproject.toml").read_text()
    assert f"version: {_library.VERSION}\n" in (ROOT / "CITATION.cff").read_text()


def test_loads_on_this_torch():
    assert _library.missing is None
    assert hasattr(torch.ops.kdops, "gram")
