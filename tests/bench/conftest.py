"""The problems of all benchmarks."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def problems():
    """Every problem of every bench_<op>.py."""
    names = sorted(path.stem for path in (ROOT / "benchmarks").glob("bench_*.py"))
    modules = [importlib.import_module(f"benchmarks.{name}") for name in names]
    found = [p for module in modules for p in getattr(module, "PROBLEMS", [])]
    assert len(found) > 50
    return found


@pytest.fixture
def benchmark(benchmark):
    """As it is without pytest-xdist, which turns it off: here nobody reads the times."""
    benchmark.disabled = False
    return benchmark
