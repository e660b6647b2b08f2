"""`python -m kdops info | demo | pictures | study | bench`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from pathlib import Path

import torch

from kdops import _backends, _library


def _info(arguments: list[str]) -> int:
    """What this install holds, which backend serves each op; --all: and why others do not."""
    parser = argparse.ArgumentParser(prog="python -m kdops info", description=_info.__doc__)
    parser.add_argument("--all", action="store_true", help="of cpu and cuda, with reasons")
    everything = parser.parse_args(arguments).all
    build = _library.build_info()
    print("\n".join(_summary(build)), end="\n\n")
    if everything:
        print("\n".join(f"{key:<24}{value}" for key, value in build.items()), end="\n\n")
    devices = ["cpu", "cuda"] if everything or torch.cuda.is_available() else ["cpu"]
    for op, sizes in _backends.registered_ops().items():
        for device in devices:
            lines = _backends.ladder_lines(op, device, torch.float32, *sizes)
            if everything:
                print(f"{op} on {device}, float32, sizes {sizes}:", *lines, sep="\n")
            else:
                print(f"{op:<24}{device:<6}{_short(lines)}")
    return 0


def _summary(build: dict[str, str]) -> list[str]:
    cuda = "no kernels compiled"
    if build.get("cuda"):
        newer = f", PTX of {build['cuda_ptx']}" if build.get("cuda_ptx") else ""
        cuda = f"kernels for sm {build['cuda_archs']}{newer}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cpu = f"{build.get('active_instruction_set')} kernels of {build.get('instruction_sets')}"
    return [
        f"kdops {build['kdops']}, torch {build['torch']}, {torch.get_num_threads()} threads",
        f"CPU     {cpu if build['native'] == 'yes' else build['native']}",
        f"CUDA    {cuda}; torch sees {gpu}",
        f"Triton  {'yes' if importlib.util.find_spec('triton') else 'not installed'}",
    ]


def _short(lines: list[str]) -> str:
    """The backend that serves, and where it is plain PyTorch why the kernel does not."""
    served = next(line.split()[0] for line in lines if line.split()[1].startswith("serves"))
    if served != "reference":
        return served
    reasons = [line.partition(" no: ")[2] for line in lines if " no: " in line]
    return "reference" + (f" ({'; '.join(reasons)})" if reasons else "")


def _demo(arguments: list[str]) -> int:
    """Trains students by several methods on small images; --help has its options."""
    demo = importlib.import_module("kdops.demo")
    result: int = demo.main(arguments)
    return result


def _pictures(arguments: list[str]) -> int:
    """Draws what methods move between networks, one PNG a picture; --help has its options."""
    gallery = importlib.import_module("kdops.pictures.gallery")
    result: int = gallery.main(arguments)
    return result


def _study(arguments: list[str]) -> int:
    """Small experiments about distillation; without a name it lists them."""
    study = importlib.import_module("kdops.study")
    result: int = study.main(arguments)
    return result


def _bench(arguments: list[str]) -> int:
    """pytest benchmarks --benchmark-only, from a source checkout."""
    missing = [
        name for name in ("pytest", "pytest_benchmark") if not importlib.util.find_spec(name)
    ]
    if missing or not Path("benchmarks/conftest.py").is_file():
        wanted = "pip install '.[bench]' brings what it needs" if missing else "run it there"
        print(f"kdops bench runs the benchmarks of a source checkout: {wanted}", file=sys.stderr)
        return 2
    import pytest

    return int(pytest.main(["benchmarks", "--benchmark-only", *arguments]))


_COMMANDS = {
    "info": _info,
    "demo": _demo,
    "pictures": _pictures,
    "study": _study,
    "bench": _bench,
}


def main() -> int:
    described = "\n".join(f"  {name:<9}{run.__doc__}" for name, run in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m kdops",
        description=f"commands:\n{described}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=list(_COMMANDS), nargs="?")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the command")
    parsed = parser.parse_args()
    if parsed.command is None:
        parser.print_help()
        return 0
    try:
        status = _COMMANDS[parsed.command](parsed.arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read, as `| head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at its end
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
