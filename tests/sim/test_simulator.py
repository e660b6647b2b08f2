"""The simulator finds planted faults, and lane.cuh's vocabulary does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sim_build import SCHEDULES, sanitized

HERE = Path(__file__).parent
FAULTS = {
    "divergent barrier": "divergent __syncthreads: .*exited",
    "barrier after exit": "divergent __syncthreads: .*exited",
    "two barriers": r"divergent __syncthreads: thread \d+ at sim_planted.cpp:\d+, thread",
    "exited lane": r"mask names an exited lane: thread \d+ at sim_planted.cpp:\d+",
    "lane outside mask": "shuffle reads lane 3, not in the mask",
    "mask without caller": "without its own lane in the mask",
    "different operations": r"in different warp operations: .*planted.cpp:\d+, .*planted.cpp:\d+",
    "deadlock": r"deadlock: .*sim_planted.cpp:\d+",
    "write past shared": "write outside a shared array of 16 bytes",
    "static shared too large": "more than 48 KiB of static shared memory",
}


def assert_sanitizer_ends(call):
    command = [sys.executable, "-c", f"import sim_build as b; sim = b.load(); {call}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    assert done.returncode != 0
    assert "AddressSanitizer: use-after-poison" in done.stderr


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_reported(sim, fault, schedule):
    if fault == "write past shared" and sanitized():
        return assert_sanitizer_ends(f"sim.planted_fault({fault!r})")
    sim.set_schedule(*schedule)
    with pytest.raises(RuntimeError, match=FAULTS[fault]):
        sim.planted_fault(fault)
    sim.planted_fault("none")  # an abandoned block leaves nothing behind


def reverse(sim, with_barrier):
    x, y = np.arange(256, dtype=np.float32), np.zeros(256, np.float32)
    sim.planted_reverse(x, y, with_barrier)
    return y


def rotate(sim, with_barrier):
    x = np.arange(128, dtype=np.float32)
    sim.planted_rotate(x, with_barrier)
    return x


@pytest.mark.parametrize("kernel", [reverse, rotate])
def test_missing_barrier_changes_the_result(sim, every_schedule, kernel):
    (good,) = every_schedule(lambda: kernel(sim, True))
    lane = np.arange(128)
    expected = np.arange(256)[::-1] if kernel is reverse else lane // 32 * 32 + (lane % 32 + 3) % 32
    assert np.array_equal(good, expected)
    with pytest.raises(AssertionError, match=r"schedule .* changes the result"):
        every_schedule(lambda: kernel(sim, False))


def test_shared_memory_starts_as_nan(sim):
    sim.set_schedule("forward")
    for _ in range(2):  # the second block must not see what the first one left
        assert np.isnan(reverse(sim, False)[:128]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 8, 32])
def test_warp_vocabulary(sim, every_schedule, width, dtype):
    rng = np.random.default_rng(width)
    x = rng.integers(-3, 4, 96).astype(dtype)  # small integers: exact sums, many ties

    def call():
        out = np.full((12, x.size), np.nan, dtype)
        getattr(sim, f"warp{width}")(x, out)
        return out

    (out,) = every_schedule(call)
    groups = x.reshape(-1, width)
    down, up = np.roll(groups, -1, 1), np.roll(groups, 1, 1)
    down[:, -1], up[:, 0] = groups[:, -1], groups[:, 0]
    per_group = [
        groups.sum(1),
        groups.max(1),
        groups.min(1),
        groups.max(1),
        groups.argmax(1),
        (groups > 1).any(1),
        (groups > -1).all(1),
        ((groups > 0) * (1 << np.arange(width))).sum(1).astype(dtype),
    ]
    rows = [np.repeat(row, width).astype(dtype) for row in per_group]
    rows += [down.ravel(), up.ravel(), np.repeat(groups[:, width // 2], width)]
    rows += [groups[:, np.arange(width) ^ (width // 2)].ravel()]
    for got, want in zip(out, rows, strict=True):
        np.testing.assert_array_equal(got, want)


def test_sums_have_the_same_bits_in_every_lane(sim, every_schedule):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(64) * 10.0 ** (np.arange(64) % 16)).astype(np.float32)

    def call():
        out = np.full((12, 64), np.nan, np.float32)
        sim.warp32(x, out)
        return out

    (out,) = every_schedule(call)
    assert (out[0, :32] == out[0, 0]).all()
    assert (out[0, 32:] == out[0, 32]).all()


def test_argmax_prefers_numbers_to_nan(sim):
    sim.set_schedule("forward")
    out = np.full((12, 32), np.nan)
    x = np.full(32, np.nan)
    sim.warp32(x, out)
    assert (out[4] == 0).all()
    x[9] = x[20] = -5.0
    sim.warp32(x, out)
    assert (out[3] == -5).all()
    assert (out[4] == 9).all()


@pytest.mark.parametrize("threads", [32, 128, 1024])
def test_block_reductions(sim, every_schedule, threads):
    x = np.random.default_rng(threads).integers(-2, 4, threads).astype(np.float64)

    def call():
        out = np.full((5, threads), np.nan)
        getattr(sim, f"block{threads}")(x, out)
        return out

    (out,) = every_schedule(call)
    want = [x.sum(), x.max(), x.min(), (x > 2).any(), (x > -2).all()]
    np.testing.assert_array_equal(out, np.repeat(np.array(want, float)[:, None], threads, 1))


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.996, 65520, 1e30, 2**-24, 2**-25]
SPECIAL += [6.1e-5, 6.0e-8, 2.9e-8, 1 + 2**-11, 1 + 3 * 2**-11, -1.5, 3.14159, 1e-40, 3.3e38]


@pytest.mark.parametrize("seed", range(4))
def test_float16_rounds_as_numpy(sim, seed):
    rng = np.random.default_rng(seed)
    scale = 2.0 ** rng.integers(-28, 18, 236)
    x = np.concatenate([SPECIAL, rng.standard_normal(236) * scale]).astype(np.float32)
    half, back = np.zeros(256, np.float16), np.zeros(256, np.float32)
    sim.round_trip(x, half, back)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half, x.astype(np.float16))
    np.testing.assert_array_equal(np.signbit(half), np.signbit(x))
    np.testing.assert_array_equal(back, half.astype(np.float32))


def test_bfloat16_rounds_to_nearest_even(sim):
    rng = np.random.default_rng(1)
    x = np.concatenate([SPECIAL, rng.standard_normal(236) * 1e3]).astype(np.float32)
    half, back = np.zeros(256, np.uint16), np.zeros(256, np.float32)
    sim.round_trip(x, half, back)
    bits = x.view(np.uint32).astype(np.uint64)
    # independent of the kernel's trick: the nearer of the two neighbours, the even one on a tie
    low, high = bits >> 16 << 16, (bits >> 16) + 1 << 16
    up = (high - bits < bits - low) | ((high - bits == bits - low) & ((low >> 16) % 2 == 1))
    want = np.where(up, high, low).astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(back[~np.isnan(x)], want[~np.isnan(x)])
    assert np.isnan(back[np.isnan(x)]).all()
