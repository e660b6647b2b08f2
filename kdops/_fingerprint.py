"""A short text that differs where tensors differ."""

from __future__ import annotations

import ctypes
import hashlib
from typing import Any

from torch import Tensor


def fingerprint(value: Any) -> str:
    """Of tensors in nested dicts and lists: names, order, types, shapes and every byte."""
    found = hashlib.blake2b(digest_size=16)
    _add(found, value)
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        found.update(f"{value.dtype}{list(value.shape)}".encode())
        size = value.numel() * value.element_size()
        if size:  # the tensor's memory itself, of any dtype, without a copy
            found.update((ctypes.c_char * size).from_address(value.data_ptr()))
    elif isinstance(value, dict) or hasattr(value, "keys"):
        for name in value.keys():  # noqa: SIM118
            found.update(f"{name}:".encode())
            _add(found, value[name])
    elif isinstance(value, (tuple, list)):
        found.update(f"{len(value)}[".encode())
        for part in value:
            _add(found, part)
    else:
        found.update(repr(value).encode())
