"""One OpSpec per public op. Adding a spec here gives an op the whole contract of test_contract.py.

References are written out in plain PyTorch here or in the op's reference.py, never through the
kernels.
"""

from functools import partial

import torch

import kdops
from kdops.testing import Case, ErrorCase, OpSpec


def _gram_reference(x, y=None):
    y = x if y is None else y
    positions = max(x[0, 0].numel() if x.numel() else 1, 1)
    return torch.einsum("bil,bjl->bij", x.flatten(2), y.flatten(2)) / positions


def _fsp_reference(f1, f2, pool):
    pools = {
        "max": torch.nn.functional.adaptive_max_pool2d,
        "avg": torch.nn.functional.adaptive_avg_pool2d,
    }
    size = tuple(min(a, b) for a, b in zip(f1.shape[2:], f2.shape[2:], strict=True))
    return _gram_reference(pools[pool](f1, size), pools[pool](f2, size))


GRAM = OpSpec(
    name="gram",
    function=kdops.gram,
    reference=_gram_reference,
    cases=(
        Case("pair", lambda make: (make.normal(3, 5, 6, 7), make.normal(3, 4, 6, 7))),
        Case("symmetric", lambda make: (make.normal(2, 7, 9, 3),)),
        Case("long", lambda make: (make.normal(2, 6, 17, 19), make.normal(2, 9, 17, 19))),
        Case("wide", lambda make: (make.normal(2, 65, 3, 3), make.normal(2, 50, 3, 3))),
        Case("series", lambda make: (make.normal(4, 3, 150), make.normal(4, 5, 150))),
        Case("volume", lambda make: (make.normal(2, 3, 4, 3, 5), make.normal(2, 8, 4, 3, 5))),
        Case("deep", lambda make: (make.normal(1, 18, 600),)),
        Case("one entry", lambda make: (make.normal(1, 1, 1), make.normal(1, 1, 1))),
    ),
    small_cases=(
        Case("pair", lambda make: (make.normal(2, 3, 2, 2), make.normal(2, 2, 2, 2))),
        Case("symmetric", lambda make: (make.normal(2, 3, 4),)),
    ),
    op_calls=(
        ("gram", lambda make: (make.normal(2, 3, 4), make.normal(2, 5, 4), 0.5)),
        ("gram", lambda make: (make.normal(2, 3, 4), None, 0.5)),
        (
            "gram_backward",
            lambda make: (make.normal(2, 3, 5), make.normal(2, 3, 4), make.normal(2, 5, 4), 0.5),
        ),
        ("gram_backward", lambda make: (make.normal(2, 3, 3), make.normal(2, 3, 4), None, 0.5)),
    ),
    empty_cases=(
        Case("no batch", lambda make: (make.normal(0, 3, 4), make.normal(0, 2, 4))),
        Case("no channels", lambda make: (make.normal(2, 0, 4), make.normal(2, 3, 4))),
        Case("no positions", lambda make: (make.normal(2, 3, 0), make.normal(2, 4, 0))),
    ),
    errors=(
        ErrorCase(lambda make: ("maps",), TypeError, "gram: expected x to be a Tensor, got str"),
        ErrorCase(lambda make: (make.normal(3, 4),), ValueError, r"gram: expected x of shape \[B"),
        ErrorCase(
            lambda make: (make.normal(2, 3, 4), make.normal(3, 3, 4)),
            ValueError,
            "same batch size, got 2 and 3",
        ),
        ErrorCase(
            lambda make: (make.normal(2, 3, 4, 4), make.normal(2, 3, 2, 2)),
            ValueError,
            "same spatial shape",
        ),
        ErrorCase(
            lambda make: (make.normal(2, 3, 4), make.normal(2, 3, 4).float()),
            TypeError,
            "expected y of the dtype of x",
        ),
        ErrorCase(lambda make: (torch.ones(2, 3, 4).int(),), TypeError, "got int32"),
    ),
)


def _fsp(pool):
    return OpSpec(
        name=f"fsp_matrix[{pool}]",
        function=partial(kdops.fsp_matrix, pool=pool),
        reference=partial(_fsp_reference, pool=pool),
        cases=(
            Case("down", lambda make: (make.normal(2, 5, 8, 8), make.normal(2, 6, 4, 4))),
            Case("same size", lambda make: (make.normal(2, 5, 6, 4), make.normal(2, 3, 6, 4))),
            Case("each axis", lambda make: (make.normal(2, 3, 8, 5), make.normal(2, 4, 4, 10))),
        ),
        small_cases=(
            Case("down", lambda make: (make.normal(1, 2, 4, 4), make.normal(1, 2, 2, 2))),
        ),
        empty_cases=(
            Case("no batch", lambda make: (make.normal(0, 3, 4, 4), make.normal(0, 2, 2, 2))),
        ),
        errors=(
            ErrorCase(
                lambda make: (make.normal(2, 3, 4, 4), make.normal(2, 3, 4)),
                ValueError,
                "fsp_matrix: expected f2 of shape",
            ),
        ),
    )


SPECS = (
    GRAM,
    _fsp("max"),
    _fsp("avg"),
)
