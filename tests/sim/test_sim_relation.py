"""The CUDA kernels of the RKD losses against the published formulas in float64, every schedule."""

from __future__ import annotations

import numpy as np
import pytest

# loss (absolute, of losses about 0.1) and gradient (relative to its largest entry)
LIMITS = {"float64": (1e-14, 1e-11), "float32": (1e-6, 4e-5)}


def unit_and_norm(differences):
    norm = np.sqrt((differences**2).sum(-1))
    safe = np.where(norm == 0, 1, norm)
    return differences / safe[..., None], norm


def slope_and_huber(x):
    h = np.clip(x, -1, 1)
    return h, h * (x - h / 2)


def exact_distance(student, teacher):
    """Loss and gradient, written out over differences of rows."""

    def ratio(x):
        unit, norm = unit_and_norm(x[:, None] - x[None])
        count = max((norm > 0).sum(), 1)
        mean = norm.sum() / count
        return unit, norm, 1 / mean if mean > 0 else 0.0, count

    unit, norm, inverse, count = ratio(student)
    _, norm_t, inverse_t, _ = ratio(teacher)
    h, loss = slope_and_huber(norm * inverse - norm_t * inverse_t)
    per_distance = np.where(norm > 0, h - (h * norm * inverse).sum() / count, 0) * inverse / h.size
    return loss.mean(), 2 * (per_distance[..., None] * unit).sum(1)


def exact_angle(student, teacher):
    def cosines(x):
        unit, norm = unit_and_norm(x[None] - x[:, None])
        return unit, norm, np.einsum("ijd,ikd->ijk", unit, unit)

    unit, norm, cos_s = cosines(student)
    h, loss = slope_and_huber(cos_s - cosines(teacher)[2])
    # d cos_ijk / d e_ij = e_ik - cos e_ij, over d_ij; both places of j are alike
    to_unit = 2 * (np.einsum("ijk,ikd->ijd", h, unit) - (h * cos_s).sum(2)[..., None] * unit)
    to_difference = to_unit * np.where(norm > 0, 1 / np.where(norm == 0, 1, norm), 0)[..., None]
    return loss.mean(), (to_difference.sum(0) - to_difference.sum(1)) / h.size


def run(sim, op, student, teacher, splits=1):
    """Loss and gradient as relation_cuda.cu gets them; more multiprocessors split the products."""
    grad = np.full_like(student, np.nan)
    if op == "distance":
        loss = sim.rkd_distance(student, teacher, splits, grad)
        assert loss == sim.rkd_distance(student, teacher, splits, None) or np.isnan(loss)
    else:
        loss, _ = sim.rkd_angle(student, teacher, splits, splits, grad)
        assert loss == sim.rkd_angle(student, teacher, splits, splits, None)[0] or np.isnan(loss)
    return np.array([loss]), grad


def problem(n, d, d_teacher, dtype, seed=0):
    generator = np.random.default_rng(seed)
    shapes = (n, d), (n, d_teacher)
    return tuple((3 + generator.standard_normal(s)).astype(dtype) for s in shapes)


def check(result, exact, dtype):
    loss_limit, grad_limit = LIMITS[dtype]
    assert abs(result[0] - exact[0]) <= loss_limit
    error = np.abs(result[1] - exact[1]).max()
    assert error <= grad_limit * np.abs(exact[1]).max()


EXACT = {"distance": exact_distance, "angle": exact_angle}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", ["distance", "angle"])
@pytest.mark.parametrize(
    ("n", "d", "d_teacher", "splits"), [(5, 3, 4, 1), (37, 40, 9, 3), (37, 9, 300, 60)]
)
def test_against_the_formula(sim, every_schedule, op, n, d, d_teacher, splits, dtype):
    student, teacher = problem(n, d, d_teacher, dtype)
    result = every_schedule(lambda: run(sim, op, student, teacher, splits))
    check(result, EXACT[op](student.astype(float), teacher.astype(float)), dtype)


@pytest.mark.parametrize("op", ["distance", "angle"])
def test_several_tiles(sim, op):
    student, teacher = problem(71, 6, 7, "float32")
    exact = EXACT[op](student.astype(float), teacher.astype(float))
    check(run(sim, op, student, teacher, 2), exact, "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", ["distance", "angle"])
def test_repeated_rows(sim, op, dtype):
    """Rows equal in the student, in the teacher, in both: finite, and the formula's value."""
    student, teacher = problem(12, 70, 5, dtype)
    student[4], student[6], teacher[6], teacher[9] = student[0], student[1], teacher[1], teacher[2]
    exact = EXACT[op](student.astype(float), teacher.astype(float))
    check(run(sim, op, student, teacher), exact, dtype)


@pytest.mark.parametrize("op", ["distance", "angle"])
@pytest.mark.parametrize("size", [1e-20, 1e20])
def test_extreme_scales(sim, op, size):
    student, teacher = problem(9, 5, 5, "float64")
    exact = EXACT[op](student, teacher)
    small = (student * size).astype("float32"), (teacher / size).astype("float32")
    loss, grad = run(sim, op, *small)
    check((loss, grad.astype(float) * size), exact, "float32")


@pytest.mark.parametrize("op", ["distance", "angle"])
def test_equal_rows_have_zero_gradient(sim, op):
    student, teacher = problem(6, 5, 5, "float32")
    student[:] = student[0]
    loss, grad = run(sim, op, student, teacher)
    assert np.isfinite(loss)
    assert (grad == 0).all()


@pytest.mark.parametrize("op", ["distance", "angle"])
def test_nan_row_gives_nan(sim, op):
    for which in (0, 1):
        inputs = problem(6, 5, 5, "float32")
        inputs[which][2, 1] = np.nan
        loss, grad = run(sim, op, *inputs)
        assert np.isnan(loss)
        assert np.isnan(grad).all()


DEGENERATE = ("clusters", "tight clusters", "far", "very far", "graded", "denormal")


def degenerate(kind):
    """Rows of which a product keeps few digits, and 12 others."""
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((12, 7))
    if kind == "clusters":
        rows = 1e-3 * rows + 100 * (np.arange(12) < 6)[:, None]
    elif kind == "tight clusters":
        rows = 1e-5 * rows + 100 * (np.arange(12) < 6)[:, None]
    elif kind in ("far", "very far"):
        rows[3] *= 1e6 if kind == "far" else 1e20
    elif kind == "graded":
        rows *= np.logspace(0, -22, 12)[:, None]
    else:
        rows *= 1e-38
    return rows.astype("float32"), generator.standard_normal((12, 4)).astype("float32")


@pytest.mark.parametrize("op", ["distance", "angle"])
@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_rows(sim, op, kind):
    """Distances and sums that cancel are taken from differences, angles beside rows so far from
    distances with twice the digits; in both roles, and of rows of double."""
    rows, others = degenerate(kind)
    for inputs in ((rows, others), (others, rows)):
        exact = EXACT[op](*(x.astype(float) for x in inputs))
        check(run(sim, op, *inputs), exact, "float32")
        check(run(sim, op, *(x.astype(float) for x in inputs)), exact, "float64")


def test_ordinary_rows_stay_in_float(sim):
    """And rows of which float says too little do not, in either role; double needs more."""
    student, teacher = problem(9, 70, 70, "float32")
    sides = {"rows": student, "near": student.copy()}
    sides["near"][2] = sides["near"][5] + np.float32(1e-3)

    def in_double(*pair):
        return sim.rkd_angle(*pair, 1, 1, np.empty_like(pair[0]))[1]

    assert not in_double(sides["rows"], teacher)
    assert in_double(sides["near"], teacher)
    assert in_double(teacher, sides["near"])
    assert not in_double(sides["near"].astype(float), teacher.astype(float))
