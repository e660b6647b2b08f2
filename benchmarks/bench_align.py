"""The align room: singular vectors of a student matched to a teacher's."""

import pytest

import kdops
from benchmarks.cases.shapes import BATCH, normal
from benchmarks.measure.harness import identify, parametrise
from benchmarks.measure.problem import Problem
from benchmarks.published.align import aligned


def _of_rows(function):
    """Right singular vectors as they come, rows of Vh."""
    return lambda student, teacher: function(student.mT, teacher.mT)


def _problem(width, candidates, count):
    return Problem(
        op="align_singular_vectors",
        label=f"{candidates} to {count} of {width}",
        make=normal((BATCH, candidates, width), (BATCH, count, width)),
        providers={
            "torch product + gather": _of_rows(aligned),
            "kdops": _of_rows(kdops.align_singular_vectors),
        },
        reference=_of_rows(aligned),
        modes=("forward", "both"),
        tolerance=1e-6,
        slow=width > 64,
    )


PROBLEMS = [_problem(width, 4, 1) for width in (64, 256)]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_align(measured, problem, provider, mode):
    measured(problem, provider, mode)
