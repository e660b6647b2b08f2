"""Makes the repository's `benchmarks` importable."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # last: an installed kdops stays in front


@pytest.fixture(scope="session")
def problems():
    """Every problem of every bench_<op>.py."""
    names = sorted(path.stem for path in (ROOT / "benchmarks").glob("bench_*.py"))
    modules = [importlib.import_module(f"benchmarks.{name}") for name in names]
    found = [p for module in modules for p in getattr(module, "PROBLEMS", [])]
    assert len(found) > 50
    return found
