"""Every check of the emulated device, with a kernel that breaks the rule and one that keeps it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from tests.emulator import library

RAMP = np.arange(32, dtype=np.float32)


def test_a_sound_kernel_runs(array, call):
    out = array(1000)
    assert call("copy", array(np.arange(1000.0)), out, 1000, 32, 32) == ""
    assert (out.numpy() == np.arange(1000)).all()


def test_blocks_on_threads(runtime, array, call):
    runtime.emulator_set_threads(3)
    out = array(4096)
    assert call("copy", array(np.arange(4096.0)), out, 4096, 128, 32) == ""
    assert (out.numpy() == np.arange(4096)).all()
    assert "out of bounds" in call("copy", array(np.arange(4095.0)), out, 4096, 128, 32)


def test_the_objection_names_kernel_source_and_lane(array, call):
    message = call("write_past", array(100), 100)
    assert re.search(r"write_past_kernel.*faults\.cu:\d+ \(block 0 warp 0 lane 31", message)


# ---- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 64, 4096])
def test_bounds_of_global_memory(array, call, size):
    for name, arguments in {
        "read_past": (array(np.ones(size)), array(32), size),
        "write_past": (array(size), size),
        "write_before": (array(size),),
    }.items():
        assert "global memory: out of bounds" in call(name, *arguments), name
    assert call("write_past", array(size), size - 1) == ""
    assert call("read_past", array(np.ones(size)), array(32), size - 1) == ""


def test_null_pointers(call):
    """Before it the address wraps around."""
    assert "global memory: out of bounds" in call("write_before", None)
    assert "global memory: out of bounds" in call("write_past", None, 31)


def test_memory_that_was_released(runtime, array, call):
    gone = array(64)
    address, gone.pointer = gone.pointer, None
    runtime.emulator_release(address)
    assert "out of bounds" in call("write_past", address, 32)


def test_unwritten_global_memory(array, call):
    assert "nobody wrote" in call("copy", array(32), array(32), 32, 1, 32)
    half = array(64)
    assert call("copy", array(RAMP), half, 32, 1, 32) == ""  # the first 32 of 64
    assert call("copy", half, array(64), 32, 1, 32) == ""
    assert "nobody wrote" in call("copy", half, array(64), 33, 2, 32)


def test_alignment(array, call):
    message = call("misaligned", array(np.ones(64)), array(32))
    assert "misaligned access" in message
    assert "8 bytes" in message


@pytest.mark.parametrize("written", [32, 31, 0])
def test_unwritten_shared_memory(array, call, written):
    assert ("nobody wrote" in call("shared_unwritten", array(32), written)) == (written < 32)


@pytest.mark.parametrize("n", [30, 31, 32])
def test_bounds_of_shared_memory(array, call, n):
    assert ("shared memory: out of bounds" in call("shared_past", array(32), n)) == (n != 31)


@pytest.mark.parametrize("first", [0, 1])
def test_unwritten_local_memory(array, call, first):
    out = array(RAMP)
    assert ("nobody wrote" in call("local_unwritten", out, first, 0)) == (first > 0)
    assert call("local_unwritten", out, first, 5) == ""


def test_host_code_cannot_read_device_memory(built):
    script = "import ctypes; from tests.emulator import library; runtime = library.runtime();"
    script += "ctypes.string_at(runtime.emulator_allocate(64), 4)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=library.ROOT, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGSEGV
    assert "host code reads or writes device memory" in done.stderr


# ---- threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [64, 256])
def test_races_between_warps(array, call, threads):
    data = array(np.arange(threads))
    assert "race: read after another warp's write" in call("reverse", data, threads, False)
    data = array(np.arange(threads))
    assert call("reverse", data, threads, True) == ""
    assert (data.numpy() == np.arange(threads)[::-1]).all()


def test_races_inside_a_warp(array, call):
    assert "race: read after another lane's write" in call("reverse_warp", array(RAMP), False)
    assert call("reverse_warp", array(RAMP), True) == ""


def test_races_for_one_byte(array, call):
    assert "race: write after another warp's write" in call("flag", array(64), False)
    counted = array(64)
    assert call("flag", counted, True) == ""
    assert (counted.numpy() == 64).all()


def test_shuffles(array, call):
    for first in (0, 8, 16):
        data = array(RAMP)
        assert call("shuffle", data, first) == ""
        swapped = np.where(first <= RAMP, np.arange(32) ^ 1, np.arange(32))
        assert (data.numpy() == swapped).all()
    assert call("shuffle_of_another", array(RAMP), 0) == ""
    assert "reads a lane that takes no part" in call("shuffle_of_another", array(RAMP), 8)


def test_lanes_that_have_diverged_at_a_shuffle(array, call):
    assert "deadlock inside warp 0" in call("shuffle_of_half", array(RAMP)) or (
        "names a lane that left" in call("shuffle_of_half", array(RAMP))
    )
    assert "names a lane that left" in call("shuffle_after_exit", array(RAMP))


def test_deadlocks_at_a_barrier(array, call):
    assert "deadlock inside warp 0" in call("barrier_of_some", array(RAMP))
    assert "barrier after some warps have left" in call("barrier_after_exit", array(64))


def test_an_endless_loop(runtime, array, call):
    runtime.emulator_set_budget(10_000)
    assert "an endless loop?" in call("endless", array(RAMP))
    assert call("endless", array(np.full(32, 5.0))) == ""


# ---- limits of a launch -------------------------------------------------------------------------


@pytest.mark.parametrize(("blocks", "threads"), [(0, 32), (1, 0), (1, 1025)])
def test_geometry(array, call, blocks, threads):
    data = array(RAMP)
    assert "invalid configuration argument" in call("copy", data, data, 0, blocks, threads)
    assert call("copy", data, data, 0, 1, 1024) == ""


@pytest.mark.parametrize(("y", "z", "threads_z"), [(65536, 1, 1), (1, 65536, 1), (1, 1, 65)])
def test_geometry_of_other_axes(array, call, y, z, threads_z):
    data = array(RAMP)
    refused = call("copy_in_grid", data, array(32), y, z, threads_z)
    assert "invalid configuration argument" in refused
    assert call("copy_in_grid", data, array(32), 3, 2, 1) == ""


def test_launch_bounds(array, call):
    assert call("bounded", array(64), 64) == ""
    assert "__launch_bounds__ says 64" in call("bounded", array(96), 96)


def test_registers(array, call):
    values = array(np.ones(80 * 1024))
    assert "too many resources requested" in call("many_registers", values, 1024)
    assert call("many_registers", values, 256) == ""


def test_shared_memory_must_be_asked_for(array, call):
    data = array(RAMP)
    assert call("fixed_shared", data, 8 << 10, -1) == ""  # 48 KiB in all
    assert "allowed are 8192" in call("fixed_shared", data, (8 << 10) + 16, -1)
    assert call("fixed_shared", data, 64 << 10, 64 << 10) == ""
    assert "allowed are 65536" in call("fixed_shared", data, 65 << 10, -1)


@pytest.mark.parametrize("kib", [64, 99, 227])
def test_shared_memory_of_the_device(runtime, array, call, kib):
    runtime.emulator_set_device(90, 132, kib << 10)
    data, most = array(RAMP), (kib - 40) << 10
    assert call("fixed_shared", data, most, most) == ""
    assert f"the device has {kib << 10}" in call("fixed_shared", data, most, most + 1)


@pytest.mark.parametrize("capability", [75, 89, 90, 120])
def test_a_device_without_an_image(runtime, array, call, capability):
    """The images are for 9.0, and PTX for what comes later."""
    runtime.emulator_set_device(capability, 132, 227 << 10)
    refused = call("copy", array(RAMP), array(32), 32, 1, 32)
    assert ("no kernel image is available" in refused) == (capability < 90)


# ---- results ------------------------------------------------------------------------------------


def rounded(value: Fraction, direction: str) -> np.float32:
    nearest = np.float32(float(value))  # may be off by one: the neighbours are tried
    around = sorted({np.nextafter(nearest, np.float32(s * np.inf)) for s in (-1, 1)} | {nearest})
    below = max(x for x in around if Fraction(float(x)) <= value)
    above = min(x for x in around if Fraction(float(x)) >= value)
    if direction == "zero":
        return below if value > 0 else above
    if direction == "nearest":
        return min((below, above), key=lambda x: abs(Fraction(float(x)) - value))
    return below if direction == "down" else above


def test_rounding_of_multiply_add(array, call):
    """Against exact fractions: sums with a tail far below the last bit, of both signs."""
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((2, 32)).astype(np.float32)
    c = (generator.standard_normal(32) * 10.0 ** generator.integers(-9, 9, 32)).astype(np.float32)
    out = array(128)
    assert call("multiply_add", array(a), array(b), array(c), out) == ""
    found = out.numpy().reshape(4, 32)
    for row, direction in zip(found, ("down", "up", "zero", "nearest"), strict=True):
        for x, p, q, r in zip(row, a, b, c, strict=True):
            value = Fraction(float(p)) * Fraction(float(q)) + Fraction(float(r))
            assert x == rounded(value, direction), (direction, p, q, r)


def test_functions_of_a_warp(array, call):
    out = array(128)
    assert call("warp_functions", array(RAMP), out) == ""
    up, down, ballot, count = out.numpy().reshape(4, 32)
    lanes = np.arange(32)
    assert (up == np.where(lanes % 16 >= 3, lanes - 3, lanes)).all()
    assert (down == np.where(lanes < 27, lanes + 5, lanes)).all()
    assert (ballot == 27).all()
    assert (count == 27).all()
