"""The command line that the stages of the GPU day have in common."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run(doc: str | None, work: Callable[[], dict[str, Any]]) -> None:
    """Writes what work() returns; exit status 1 if that says {"problems": [...]}."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true", help="on the emulated device")
    options = parser.parse_args()
    if options.rehearse:
        importlib.import_module("benchmarks.day.rehearsal")
    found = {"rehearsed": options.rehearse, **work()}
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    for problem in found.get("problems", []):
        print(problem)
    sys.exit(1 if found.get("problems") else 0)
