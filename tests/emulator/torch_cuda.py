"""torch.cuda for the emulated device: the questions that a torch without CUDA does not answer.

What cannot be emulated (streams, events, graphs) stays as it is and fails; the plugin skips the
tests that need it.
"""

from __future__ import annotations

import types
from ctypes import CDLL

import torch


class _NoDevice:
    """`with torch.cuda.device(...)`: there is only one."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


PROPERTIES = types.SimpleNamespace(
    name="emulated",
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=1 << 36,
    warp_size=32,
    max_threads_per_multi_processor=2048,
    regs_per_multiprocessor=65536,
    L2_cache_size=50 << 20,
    shared_memory_per_block=48 << 10,
    shared_memory_per_block_optin=227 << 10,
    gcnArchName="",
)


def _memory(runtime: CDLL) -> dict[str, object]:
    return {
        "memory_allocated": lambda *_: runtime.emulator_memory_live(),
        "max_memory_allocated": lambda *_: runtime.emulator_memory_peak(),
        "reset_peak_memory_stats": lambda *_: runtime.emulator_reset_peak(),
        "empty_cache": lambda: None,
    }


def answer(runtime: CDLL) -> None:
    """Makes torch.cuda speak of the emulated device."""
    answers = {
        "_initialized": True,
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *_, **__: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "synchronize": lambda *_: None,
        "get_device_name": lambda *_: PROPERTIES.name,
        "get_device_capability": lambda *_: (PROPERTIES.major, PROPERTIES.minor),
        "get_device_properties": lambda *_: PROPERTIES,
        "_get_device_properties": lambda *_: PROPERTIES,
        "get_rng_state": lambda *_: torch.get_rng_state(),  # the operators are the CPU's
        "set_rng_state": lambda *_: None,
        "manual_seed": lambda _: None,
        "manual_seed_all": lambda _: None,
        "device": _NoDevice,
        "device_of": _NoDevice,
    }
    for name, value in (answers | _memory(runtime)).items():
        setattr(torch.cuda, name, value)
    for name in ("getDevice", "setDevice", "exchangeDevice", "maybeExchangeDevice"):
        if not hasattr(torch._C, f"_cuda_{name}"):
            setattr(torch._C, f"_cuda_{name}", lambda *_: 0)
