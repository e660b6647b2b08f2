"""The gram kernels, planned as on a GPU, against numpy in float64, under every schedule."""

from __future__ import annotations

import numpy as np
import pytest
from sim_maps import ROUNDING, as_float, maps, memory


class Product:
    """out = scale * a bT for a (B, rows, depth), b (B, cols, depth) in whatever memory layout."""

    def __init__(self, sim, every_schedule):
        self.sim, self.every_schedule = sim, every_schedule

    def __call__(self, a, b, *, symmetric=False, transpose=False, processors=1, one=False):
        shape = (a.shape[0], a.shape[1], b.shape[1])
        (a_flat, a_strides), (b_flat, b_strides) = memory(a), memory(b)

        def call():
            out = np.full(shape, 0xFFFF if a.dtype == np.uint16 else np.nan, a.dtype)
            self.splits = self.sim.gram_product(
                *(a_flat, a_strides, b_flat, b_strides, out, a.shape[2]),
                *(symmetric, transpose, 0.25, processors),
            )
            return out

        if one:
            return call()
        return self.every_schedule(call)[0]


@pytest.fixture
def product(sim, every_schedule):
    return Product(sim, every_schedule)


def check(out, a, b, dtype, transpose=False):
    a, b = as_float(a), as_float(b)
    if transpose:
        a = a + a.transpose(0, 2, 1)
    want = 0.25 * a @ b.transpose(0, 2, 1)
    size = 0.25 * np.abs(a) @ np.abs(b).transpose(0, 2, 1)
    # the terms are summed in double or in float, then rounded once to the result's type
    summing = ROUNDING["float64" if dtype == "float64" else "float32"]
    bound = ROUNDING[dtype] * np.abs(want) + 16 * summing * size
    assert (np.abs(as_float(out) - want) <= bound).all()


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("rows", "cols", "depth"), [(5, 16, 130), (33, 20, 37), (70, 66, 21), (1, 1, 1)]
)
def test_product(product, rows, cols, depth, dtype, channels_last):
    a = maps(1, 2, rows, depth, dtype=dtype, channels_last=channels_last)
    b = maps(2, 2, cols, depth, dtype=dtype, channels_last=channels_last)
    check(product(a, b), a, b, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("channels", "depth"), [(13, 100), (40, 17), (100, 9), (200, 5)])
def test_symmetric(product, channels, depth, dtype):
    x = maps(3, 2, channels, depth, dtype=dtype)
    out = product(x, x, symmetric=True)
    check(out, x, x, dtype)
    assert np.array_equal(out, out.transpose(0, 2, 1))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize(("channels", "depth"), [(16, 1000), (24, 300), (65, 333)])
def test_split_depth(product, channels, depth, dtype, symmetric):
    x = maps(4, 1, channels, depth, dtype=dtype)
    y = x if symmetric else maps(5, 1, channels, depth, dtype=dtype)
    out = product(x, y, symmetric=symmetric, processors=40)
    assert product.splits > 1
    check(out, x, y, dtype)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_backward_products(product, dtype, channels_last):
    """gx = grad y and gy = gradT x read the same tensors with other strides."""
    grad = maps(6, 2, 20, 12, dtype=dtype)
    x = maps(7, 2, 20, 75, dtype=dtype, channels_last=channels_last)
    y = maps(8, 2, 12, 75, dtype=dtype, channels_last=channels_last)
    for g, other in [(grad, y), (grad.transpose(0, 2, 1), x)]:
        positions = other.transpose(0, 2, 1)
        check(product(g, positions), g, positions, dtype)


def test_symmetric_backward(product):
    grad, x = maps(9, 2, 36, 36), maps(10, 2, 36, 50)
    positions = x.transpose(0, 2, 1)
    check(product(grad, positions, transpose=True), grad, positions, "float32", transpose=True)


def test_no_positions_gives_zeros(product):
    a, b = np.zeros((2, 3, 1), np.float32)[:, :, :0], np.zeros((2, 4, 1), np.float32)[:, :, :0]
    assert (product(a, b) == 0).all()


def test_nan_stays_in_its_item(product):
    a, b = maps(11, 3, 17, 40), maps(12, 3, 18, 40)
    a[1, 4, 7] = np.nan
    out = product(a, b)
    assert np.isnan(out[1, 4]).all()
    assert np.isnan(out).sum() == 18
