"""Runs cases under callgrind and reads what it counted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIBRARY = "_C.abi3.so"  # whose instructions are ours: its own, and what it inlined
# One instruction set whatever the processor (BLAS sees the one that valgrind shows it), and a fixed
# seed of hashes, as the interpreter's instructions are counted beside ours.
ENVIRONMENT = {"KDOPS_ISA": "avx2", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


def obstacle() -> str | None:
    """Why nothing can be counted here."""
    for program in ("valgrind", "gcc"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None


def program() -> str:
    """The counted one. This checkout's kdops if it is compiled, an installed one otherwise."""
    compiled = any((ROOT / "kdops").glob("_C*"))
    place = f"sys.path.insert(0, {str(ROOT)!r})" if compiled else f"sys.path.append({str(ROOT)!r})"
    return f"import sys; {place}; from benchmarks.instructions import counted; counted.main()"


def counts(names: list[str]) -> Iterator[tuple[str, dict[str, int]]]:
    """(case, {"kdops": instructions of our library, "others": all else}), as they are counted."""
    with tempfile.TemporaryDirectory() as folder:
        marks = Path(folder) / "marks.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", marks, HERE / "marks.c"], check=True)
        out = Path(folder) / "counts"
        command = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no"]
        command += ["--collect-atstart=no", f"--callgrind-out-file={out}"]
        command += [sys.executable, "-c", program(), str(marks), *names]
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for number, line in enumerate(process.stdout, start=1):
            yield line.rstrip("\n"), read(Path(f"{out}.{number}").read_text())
        if process.wait() != 0:
            raise SystemExit("benchmarks.instructions: the counted process failed, see above")


def read(dump: str) -> dict[str, int]:
    """Instructions by whose they are, of one dump: a line "LINE COST" belongs to the object named
    last, but not one after "calls=", which holds what the callee took."""
    names: dict[str, str] = {}
    found = {"kdops": 0, "others": 0}
    place, skip = "others", False
    for line in dump.splitlines():
        if match := re.match(r"ob=(\(\d+\))(?: (.*))?", line):
            key, name = match.groups()
            names.setdefault(key, name or "")
            place = "kdops" if names[key].endswith(LIBRARY) else "others"
        elif match := re.match(r"cob=(\(\d+\)) (.*)", line):
            names.setdefault(*match.groups())
        elif line.startswith("calls="):
            skip = True
        elif re.match(r"[+*\d-]", line):
            if not skip:
                found[place] += int(line.split()[1])
            skip = False
    return found
