"""kdops' own side of the quick benchmark cases: what compare times and instructions counts."""

from __future__ import annotations

import importlib
import pkgutil

import benchmarks
from benchmarks.measure import harness, paired
from benchmarks.measure.problem import Problem


def problems() -> list[Problem]:
    """Of all benchmark files, as they are discovered: the quick ones for the CPU."""
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__))
    modules = [importlib.import_module(f"benchmarks.{n}") for n in names if n.startswith("bench_")]
    found = [p for module in modules for p in getattr(module, "PROBLEMS", [])]
    return [p for p in found if p.device == "cpu" and not p.slow]


def cases() -> dict[str, tuple[Problem, str]]:
    """name -> (problem, mode): forward and backward where there is one."""
    found = {}
    for problem in problems():
        mode = "both" if "both" in problem.modes else problem.modes[0]
        found[f"{problem.name} {mode}"] = (problem, mode)
    return found


def call_of(problem: Problem, mode: str) -> paired.Run:
    """The call of the last provider, which is ours."""
    return harness.Session(quick=True).run_of(problem, list(problem.providers)[-1], mode)
