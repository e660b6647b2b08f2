"""What the compiled library asks of the machine that loads it, and the tag of its wheel."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kdops import _library

GLIBC_STUBS = Path(__file__).parents[2] / "cmake" / "glibc_stubs.py"
LIBRARY = _library._find()
TORCH = {"libtorch.so", "libtorch_cpu.so", "libc10.so"}
SYSTEM = r"(libstdc\+\+|libm|libgcc_s|libc|libpthread|libdl|librt|ld-linux-[\w-]+)\.so\.\d+"
# the newest of each name that a system promises; GCC 8's of the runtime libraries
MANYLINUX_2_28 = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)}

pytestmark = [
    pytest.mark.skipif(LIBRARY is None, reason="this install holds no compiled library"),
    pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="ELF is Linux's"),
]


def read(library, option):
    command = ["readelf", "-W", option, str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def needed(library):
    """The undefined symbols that must be found, weak ones aside: name -> version or None."""
    found = re.findall(r"GLOBAL +\w+ +UND (\w+)(?:@(\w+)_([\d.]+))?", read(library, "--dyn-syms"))
    return {
        name: (of, tuple(int(n) for n in version.split("."))) if of else None
        for name, of, version in found
    }


def newer_than(library, promised):
    """What an older system lacks: a version above the promised one, or of an unknown name."""
    versions = {name: version for name, version in needed(library).items() if version}
    return {
        name: version
        for name, version in versions.items()
        if version[1] > promised.get(version[0], (0,))
    }


def platform_tag():
    """Of the wheel that the library came in; None where it lies in a checkout."""
    for installed in importlib.metadata.distributions(name="kdops"):
        library = Path(str(installed.locate_file("kdops/_C.abi3.so")))
        if library.is_file() and library.samefile(LIBRARY):
            tag = re.search(r"^Tag: (.*)$", installed.read_text("WHEEL") or "", re.M)
            return tag and tag[1]
    return None


def test_it_needs_torch_and_the_system_only():
    libraries = set(re.findall(r"\(NEEDED\).*\[(.*)\]", read(LIBRARY, "--dynamic")))
    assert libraries >= TORCH
    assert [name for name in libraries - TORCH if not re.fullmatch(SYSTEM, name)] == []


def test_it_names_no_folder_of_the_machine_that_built_it():
    assert not re.search(r"\((RPATH|RUNPATH)\)", read(LIBRARY, "--dynamic"))


def test_all_symbols_are_of_torchs_stable_abi_or_the_system():
    """One file for CPU and CUDA builds of torch, and for every Python."""
    open_names = [name for name, version in needed(LIBRARY).items() if version is None]
    assert any(name.startswith("aoti_torch_") for name in open_names)
    assert [name for name in open_names if not name.startswith(("torch_", "aoti_torch_"))] == []


def test_no_symbol_is_newer_than_the_tag():
    tag = platform_tag()
    if tag is None or "manylinux" not in tag:
        pytest.skip(f"not from a wheel for other machines (make wheel), but {tag or 'a checkout'}")
    assert re.fullmatch(r"py3-none-manylinux_2_28_\w+", tag)
    assert newer_than(LIBRARY, MANYLINUX_2_28) == {}


def linked(folder, source, *options):
    command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(folder / "some.so"), *options]
    return subprocess.run(command, input=source, text=True, capture_output=True)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_library_for_an_older_glibc_asks_for_its_symbols(tmp_path):
    """Linked here, pow is of glibc 2.29 and pthread_create of 2.34."""
    subprocess.run([sys.executable, GLIBC_STUBS, "g++", "2.28", tmp_path / "stubs"], check=True)
    options = (f"-L{tmp_path}/stubs", "-Wl,-z,defs", "-Wl,--no-as-needed", "-lm")
    source = (
        "#include <math.h>\n#include <pthread.h>\n#include <stdlib.h>\n"
        "double f(double x, pthread_t* t) { atexit([] {}); pthread_create(t, 0, 0, 0);"
        " return pow(x, x); }"
    )
    run = linked(tmp_path, source, *options)
    assert run.returncode == 0, run.stderr
    assert {"pow", "pthread_create"} <= needed(tmp_path / "some.so").keys()
    assert newer_than(tmp_path / "some.so", MANYLINUX_2_28) == {}
    libraries = re.findall(r"\(NEEDED\).*\[(.*)\]", read(tmp_path / "some.so", "--dynamic"))
    assert {"libm.so.6", "libc.so.6"} <= set(libraries)

    later = 'extern "C" int brought_by_glibc_2_99(); int f() { return brought_by_glibc_2_99(); }'
    assert (
        "undefined reference to `brought_by_glibc_2_99'" in linked(tmp_path, later, *options).stderr
    )
