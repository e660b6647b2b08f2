"""The alignment of singular vectors, launched as on a GPU, against numpy under every schedule."""

from __future__ import annotations

import numpy as np
import pytest
from sim_matrices import by_columns, normal

# (B, D, K', k): fewer and more candidates than warps, lengths off the warp and past the block
SIZES = [(2, 64, 4, 1), (1, 4, 2, 2), (3, 7, 1, 3), (2, 1, 5, 4), (1, 200, 13, 3), (2, 33, 6, 8)]


@pytest.fixture
def align(sim, every_schedule):
    """(student, teacher) -> aligned, choice; outputs start as NaN and as no choice at all."""

    def run(student, teacher):
        batch, _, count = teacher.shape

        def call():
            aligned = np.full(teacher.shape, np.nan, student.dtype)
            choice = np.full((batch, count), 10**9)
            sim.align_vectors(student, teacher, aligned, choice)
            return aligned, choice

        return every_schedule(call)

    return run


@pytest.fixture
def align_backward(sim, every_schedule):
    def run(grad, choice, candidates):
        def call():
            out = np.full((len(grad), candidates, grad.shape[1]), np.nan, grad.dtype)
            sim.align_vectors_backward(grad, choice, out)
            return out

        return every_schedule(call)[0].swapaxes(1, 2)

    return run


def expected_of(student, teacher):
    cosine = np.einsum("bdi,bdj->bij", student.astype(np.float64), teacher.astype(np.float64))
    best = np.abs(cosine).argmax(1)  # numpy too: the first of equals, NaN before all
    turned = np.take_along_axis(cosine, best[:, None], 1) < 0
    chosen = np.take_along_axis(student, best[:, None], 2)
    return np.where(turned, -chosen, chosen), np.where(turned[:, 0], -1, 1) * (best + 1)


def expected_gradient(grad, choice, candidates):
    names = np.arange(1, candidates + 1)[:, None]
    of_name = (choice[:, None] == names) * 1.0 - (choice[:, None] == -names) * 1.0  # (B, K', k)
    return np.einsum("bdj,bij->bdi", grad.astype(np.float64), of_name)


def layouts(x):
    wide = np.full((*x.shape[:2], 2 * x.shape[2] + 1), np.nan, x.dtype)
    wide[..., 1::2] = x
    return x, by_columns(x), wide[..., 1::2], np.broadcast_to(x[:1], x.shape)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_layout(align, dtype, sizes):
    batch, length, candidates, count = sizes
    student, teacher = (
        normal((batch, length, candidates), dtype),
        normal((batch, length, count), dtype, 1),
    )
    for s, t in zip(layouts(student), layouts(teacher), strict=True):
        for found, expected in zip(align(s, t), expected_of(s, t), strict=True):
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gradient(align_backward, dtype, sizes):
    batch, length, candidates, count = sizes
    rng = np.random.default_rng(2)
    choice = rng.integers(1, candidates + 1, (batch, count)) * rng.choice([-1, 1], (batch, count))
    for grad in layouts(normal((batch, length, count), dtype, 3)):
        found = align_backward(grad, choice, candidates)
        expected = expected_gradient(grad, choice, candidates)
        assert np.abs(found - expected).max() <= 20 * np.finfo(dtype).eps * np.abs(expected).max()


def test_the_first_of_equals(align, dtype):
    """Copies, turned round or not, in the hands of other warps and of the same one."""
    student, teacher = normal((1, 40, 14), dtype), normal((1, 40, 2), dtype, 1)
    teacher[..., 1] = -teacher[..., 0]
    student[..., 5] = 3 * teacher[..., 0]
    student[..., [6, 9]] = student[..., 5:6]
    student[..., [8, 13]] = -student[..., 5:6]
    assert np.array_equal(align(student, teacher)[1], [[6, -6]])


def test_orthogonal_vectors(align, dtype):
    """All cosines zero: the first candidate as it is."""
    student, teacher = np.zeros((1, 6, 9), dtype), np.ones((1, 6, 2), dtype)
    assert np.array_equal(align(student, teacher)[1], [[1, 1]])


@pytest.mark.parametrize("bad", [[3], [6, 2], [7, 3]], ids=str)
def test_nan_is_the_closest_and_stays_alone(align, dtype, bad):
    student, teacher = normal((3, 10, 9), dtype), normal((3, 10, 2), dtype, 1)
    clean = align(student, teacher)
    student[1, 4, bad] = np.nan
    aligned, choice = align(student, teacher)
    assert np.array_equal(choice[1], [min(bad) + 1] * 2)
    assert np.array_equal(aligned[1], student[1][:, [min(bad)] * 2], equal_nan=True)
    for before, after in zip(clean, (aligned, choice), strict=True):
        assert np.array_equal(before[[0, 2]], after[[0, 2]])
