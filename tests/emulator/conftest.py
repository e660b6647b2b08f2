"""The emulator's runtime and its planted faults; arrays in its memory. None of it needs torch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.emulator import library

HOPPER = (90, 132, 227 << 10)  # compute capability, multiprocessors, shared memory of a block
ENOUGH = 1 << 31


@pytest.fixture(scope="session")
def built() -> None:
    if reason := library.obstacle():
        pytest.skip(f"emulated CUDA device: {reason}")
    library.build("kdops_emulator_faults")


@pytest.fixture
def runtime(built: None) -> Iterator[ctypes.CDLL]:
    library_ = library.runtime()
    yield library_
    library_.emulator_set_device(*HOPPER)
    library_.emulator_set_budget(ENOUGH)
    library_.emulator_set_threads(1)
    library_.emulator_objections()  # those of a fault that a test has planted


class Array:
    """float32 in the emulator's memory."""

    def __init__(self, runtime: ctypes.CDLL, values: np.ndarray | int) -> None:
        self.runtime = runtime
        self.size = values if isinstance(values, int) else values.size
        self.pointer = ctypes.c_void_p(runtime.emulator_allocate(4 * self.size))
        if not isinstance(values, int):
            data = np.ascontiguousarray(values, np.float32)
            runtime.emulator_write(self.pointer, data.ctypes.data, data.nbytes)

    def numpy(self) -> np.ndarray:
        data = np.empty(self.size, np.float32)
        self.runtime.emulator_read(data.ctypes.data, self.pointer, data.nbytes)
        return data

    def __del__(self) -> None:
        self.runtime.emulator_release(self.pointer)


@pytest.fixture
def array(runtime: ctypes.CDLL) -> Callable[..., Array]:
    """array(values) is written, array(n) is not."""
    return lambda values: Array(runtime, values)


@pytest.fixture
def call(runtime: ctypes.CDLL) -> Callable[..., str]:
    """call(name, *arguments) launches a kernel of faults/; "" or what the device says."""
    functions = library.faults()

    def launch(name: str, *arguments: object) -> str:
        function = getattr(functions, name)
        function.restype = ctypes.c_char_p
        return function(*(getattr(a, "pointer", a) for a in arguments)).decode()

    return launch
