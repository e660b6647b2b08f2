"""Feature maps in every type and memory layout, for the tests of the gram kernels."""

from __future__ import annotations

import numpy as np

# largest relative error of one rounding to the result's type
ROUNDING = {"float64": 2**-53, "float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-8}


def to_bfloat16(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def as_float(x):
    if x.dtype != np.uint16:
        return x.astype(np.float64)
    return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def store(x, dtype):
    return to_bfloat16(x) if dtype == "bfloat16" else x.astype(dtype)


def memory(array):
    """The flat storage of an array in its own layout, and its strides in elements."""
    order = np.argsort([-s for s in array.strides], kind="stable")
    flat = np.ascontiguousarray(array.transpose(order)).ravel()
    rank = np.empty(3, int)
    shape = [array.shape[i] for i in order]
    for place, axis in enumerate(order):
        rank[axis] = int(np.prod(shape[place + 1 :]))
    return flat, [int(s) for s in rank]


def maps(seed, *shape, dtype="float32", channels_last=False):
    x = np.random.default_rng(seed).standard_normal(shape)
    if channels_last:
        x = np.ascontiguousarray(x.transpose(0, 2, 1))
        return store(x, dtype).transpose(0, 2, 1)
    return store(x, dtype)
