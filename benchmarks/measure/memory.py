"""The peak memory of one call: what it needs above its arguments, its result included.

On CUDA the caching allocator counts. On Linux the kernel keeps the process's largest resident size
(VmHWM) and resets it when "5" is written to /proc/self/clear_refs. Two things of glibc's malloc
would blur it: what earlier calls freed is first handed back, or it would be used again unseen; and
the call runs in a thread of its own, whose heap holds small blocks only, all others being mapped
by themselves, or the holes of a used heap would count. That thread ends with the call: a second
pool of OpenMP threads, were it kept, would stop those of the first from spinning between calls and
slow every later one. Elsewhere the answer is None.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mb(call: Callable[[], object], device: str = "cpu") -> float | None:
    """Runs call() once; megabytes (2^20 bytes) of its peak above the start, None if unknown."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        del result
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        libc.mallopt(MMAP_THRESHOLD, 1 << 16)
        RESET.write_text("5")
        started = _resident("VmRSS")
    except (OSError, AttributeError, LookupError):  # no Linux, no glibc, or not allowed
        call()
        return None
    try:
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(_run, call).result()
        return max(0.0, _resident("VmHWM") - started)
    finally:  # where malloc's own adaptation ends in a process that uses large tensors
        libc.mallopt(MMAP_THRESHOLD, 1 << 25)
        libc.mallopt(TRIM_THRESHOLD, 1 << 26)


def _run(call: Callable[[], object]) -> None:
    call()


def _resident(field: str) -> float:
    """A line of the status file such as "VmRSS:   123 kB", in megabytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise LookupError(field)
