"""The simulator module, the schedules, and the check that a kernel does not depend on them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import sim_build
from topk_solver import Solver


@pytest.fixture(scope="session")
def sim() -> ModuleType:
    try:
        return sim_build.load()
    except sim_build.Unavailable as reason:
        pytest.skip(f"CUDA simulator: {reason}")
    except sim_build.Broken as message:
        pytest.fail(str(message), pytrace=False)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture
def every_schedule(sim: ModuleType) -> Callable[[Callable[[], object]], list[np.ndarray]]:
    """run(f) calls f() under every schedule; its arrays must be the same to the last bit."""

    def run(call: Callable[[], object]) -> list[np.ndarray]:
        first: list[np.ndarray] | None = None
        for name, seed in sim_build.SCHEDULES:
            sim.set_schedule(name, seed)
            result = call()
            arrays = list(result) if isinstance(result, (tuple, list)) else [result]
            first = first or arrays
            for a, b in zip(first, arrays, strict=True):
                same = a.shape == b.shape and a.tobytes() == b.tobytes()
                assert same, f"the {name} schedule (seed {seed}) changes the result"
        assert first is not None
        return first

    return run


@pytest.fixture
def solver(sim: ModuleType, every_schedule: Callable[[Callable[[], object]], list[np.ndarray]]):
    return Solver(sim, every_schedule)


@pytest.fixture
def quick_solver(sim: ModuleType) -> Solver:
    """Under one schedule: for cases that take long."""
    sim.set_schedule("forward", 1)

    def run(call: Callable[[], object]) -> list[np.ndarray]:
        result = call()
        return [*result] if isinstance(result, (tuple, list)) else [result]

    return Solver(sim, run)
