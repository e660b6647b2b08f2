"""`python -m kdops info | demo | bench`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys

import torch

from kdops import _backends, _library


def _info(_: list[str]) -> int:
    """Versions, what is compiled, and which backend serves each op on each device."""
    for key, value in _library.build_info().items():
        print(f"{key:<24}{value}")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none seen by torch"
    triton = "yes" if importlib.util.find_spec("triton") else "not installed"
    print(f"{'cuda device':<24}{cuda}\n{'triton':<24}{triton}")
    print(f"{'torch threads':<24}{torch.get_num_threads()}\n")
    for op, sizes in _backends.registered_ops().items():
        for device in ("cpu", "cuda"):
            print(f"{op} on {device}, float32, sizes {sizes}:")
            print("\n".join(_backends.ladder_lines(op, device, torch.float32, *sizes)))
    return 0


def _demo(arguments: list[str]) -> int:
    """Runs the demo."""
    demo = importlib.import_module("kdops.demo")
    result: int = demo.main(arguments)
    return result


def _bench(arguments: list[str]) -> int:
    """pytest benchmarks --benchmark-only, from a source checkout."""
    import pytest

    return int(pytest.main(["benchmarks", "--benchmark-only", *arguments]))


_COMMANDS = {"info": _info, "demo": _demo, "bench": _bench}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m kdops", description=__doc__)
    parser.add_argument("command", choices=list(_COMMANDS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the command")
    parsed = parser.parse_args()
    return _COMMANDS[parsed.command](parsed.arguments)


if __name__ == "__main__":
    sys.exit(main())
