"""Stand-ins for libc and libm as an older glibc had them, for the linker to resolve symbols from.

    python glibc_stubs.py COMPILER 2.28 FOLDER      then link with -L FOLDER

A linker binds each symbol to the newest version that the build machine has, and a library that asks
for pow@GLIBC_2.29 does not load on glibc 2.28. Headers cannot choose for object files that are
compiled already (the CUDA runtime's). So every symbol appears here once, in its newest version that
the older glibc had, or not at all. The stand-ins hold no code and are never loaded: they bear the
names of the real libraries. KdopsGlibc.cmake calls this.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def symbols_of(library: Path, newest: str) -> dict[str, str]:
    """Name -> version of all that this glibc defines and that one defined."""
    chosen: dict[str, str] = {}
    for line in run("readelf", "-W", "--dyn-syms", str(library)).splitlines():
        match = re.search(r" (\S+) +([\w.]+)@@?GLIBC_([\d.]+)$", line)
        if match is None or match[1] == "UND":
            continue
        _, name, version = match.groups()
        known = numbers(chosen.get(name, "0"))
        if known < numbers(version) <= numbers(newest):
            chosen[name] = version
    return chosen


def write_stub(compiler: str, library: Path, newest: str, stub: Path) -> None:
    symbols = symbols_of(library, newest)
    of_version = defaultdict(list)
    for name, version in symbols.items():
        of_version[version].append(name)
    versions = stub.with_suffix(".map")
    versions.write_text(
        "\n".join(f"GLIBC_{v} {{ {'; '.join(names)}; }};" for v, names in of_version.items())
    )
    source = stub.with_suffix(".s")
    source.write_text(
        ".text\n" + "".join(f".globl {n}\n.type {n}, %function\n{n}:\n" for n in symbols)
    )
    run(
        *(compiler, "-shared", "-nostdlib", str(source), f"-Wl,--version-script={versions}"),
        *(f"-Wl,-soname,{library.name}", "-o", str(stub)),
    )


def main(compiler: str, newest: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    find = lambda name: Path(run(compiler, f"-print-file-name={name}").strip())  # noqa: E731
    write_stub(compiler, find("libm.so.6"), newest, folder / "libm.so")
    write_stub(compiler, find("libc.so.6"), newest, folder / "libc_stub.so")
    # libc.so is a text that names libc.so.6 and the few functions that are linked statically
    text = find("libc.so").read_text()
    (folder / "libc.so").write_text(re.sub(r"\S*/libc\.so\.6", f"{folder}/libc_stub.so", text))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve())
