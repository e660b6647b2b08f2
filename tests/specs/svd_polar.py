"""Specs of the polar factors and the nuclear norm, which are unique where no value is zero."""

import torch

import kdops
from kdops.testing import Case, ErrorCase, OpSpec
from specs.svd import spectrum, svd_reference


def _polar_reference(A):
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    return U @ Vh, (Vh.mT * S.unsqueeze(-2)) @ Vh


_POLAR_SHAPES = {
    "square": (3, 9, 9),
    "tall": (5, 40, 6),
    "wide": (2, 7, 33),
    "leading dims": (2, 3, 12, 10),
}


def _of(shapes):
    return tuple(
        Case(label, lambda make, shape=shape: (spectrum(make, *shape),))
        for label, shape in shapes.items()
    )


_SMALL = _of({"square": (2, 4, 4), "tall": (1, 6, 4), "wide": (1, 4, 5)})
_NO_ENTRIES = _of({"no matrices": (0, 6, 5), "no columns": (2, 6, 0), "none": (2, 0, 0)})


def _not_matrices(name):
    return (
        ErrorCase(lambda make: (make.normal(4),), ValueError, f"{name}: expected A of shape"),
        ErrorCase(lambda make: (torch.ones(2, 3, 4).int(),), TypeError, "got int32"),
    )


BATCHED_POLAR = OpSpec(
    name="batched_polar",
    function=kdops.batched_polar,
    reference=_polar_reference,
    cases=_of(_POLAR_SHAPES),
    small_cases=_SMALL,
    empty_cases=_NO_ENTRIES,
    errors=_not_matrices("batched_polar"),
)

BATCHED_NUCLEAR_NORM = OpSpec(
    name="batched_nuclear_norm",
    function=kdops.batched_nuclear_norm,
    reference=lambda A: svd_reference(A)[1].sum(-1),
    cases=_of(_POLAR_SHAPES),
    small_cases=_SMALL,
    empty_cases=_NO_ENTRIES,
    errors=_not_matrices("batched_nuclear_norm"),
    skips={
        "value_without_gradient": "values alone come from another algorithm: "
        "tests/ops/test_svd_polar.py asserts that they agree to rounding"
    },
)

SPECS = (BATCHED_NUCLEAR_NORM, BATCHED_POLAR)
