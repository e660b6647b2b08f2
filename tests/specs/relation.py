"""Specs of the relations; distances and angles written out over differences of rows."""

from functools import partial

import torch

import kdops
from kdops.testing import Case, ErrorCase, OpSpec


def _safe_norm(x):
    squares = x.square().sum(-1)
    zero = squares == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())


def _distance_reference(x, y=None, squared=False):
    differences = x[..., :, None, :] - (x if y is None else y)[..., None, :, :]
    return differences.square().sum(-1) if squared else _safe_norm(differences)


def _cosine_reference(x, y=None):
    def unit(rows):
        norm = _safe_norm(rows)[..., None]
        return torch.where(norm == 0, 0.0, rows / torch.where(norm == 0, 1.0, norm))

    return unit(x) @ unit(x if y is None else y).mT


def _angle_reference(x):
    differences = x[None] - x[:, None]
    norms = _safe_norm(differences)[..., None]
    unit = torch.where(norms == 0, 0.0, differences / torch.where(norms == 0, 1.0, norms))
    return torch.einsum("ijd,ikd->ijk", unit, unit)


def _rkd_distance_reference(student, teacher):
    def ratio(x):
        d = _distance_reference(x.flatten(1))
        return d / d[d > 0].mean() if (d > 0).any() else d

    return torch.nn.functional.smooth_l1_loss(ratio(student), ratio(teacher))


def _rkd_angle_reference(student, teacher):
    angles = _angle_reference(student.flatten(1)), _angle_reference(teacher.flatten(1))
    return torch.nn.functional.smooth_l1_loss(*angles)


def _similarity_reference(student, teacher):
    def normalised(x):
        gram = x.flatten(1) @ x.flatten(1).mT
        return gram / gram.norm(dim=1, keepdim=True)

    return (normalised(student) - normalised(teacher)).square().mean()


def hard_rows(make, kind, constant=False):
    """12 rows of which a Gram expansion or the law of cosines keeps few digits, or whose squares
    vanish."""
    x = make.normal(12, 6, constant=True).double()
    if kind == "clusters":
        x = 1e-2 * x
        x[:6] += 100
    elif kind == "graded":
        x *= torch.logspace(0, -20, 12, dtype=x.dtype, device=x.device)[:, None]
    elif kind == "denormal":
        x = 4e-38 * x
    else:
        x[3] *= {"far": 1e5, "very far": 1e20}[kind]
    return make.of(x, constant)


HARD = ("clusters", "far", "very far", "graded", "denormal")


def _hard_pairs(kinds):
    """Such rows as student and as teacher."""

    def case(kind, teacher):
        def build(make):
            hard, others = hard_rows(make, kind, teacher), make.normal(12, 4, constant=not teacher)
            return (others, hard) if teacher else (hard, others)

        return Case(f"{kind} {'teacher' if teacher else 'student'}", build)

    return tuple(case(kind, teacher) for kind in kinds for teacher in (False, True))


def _relation_loss(name, function, reference, hard=HARD):
    def rows(n, d, d_teacher):
        return lambda make: (make.normal(n, d), make.normal(n, d_teacher, constant=True))

    def repeated(make):
        x, t = make.normal(9, 4), make.normal(9, 6, constant=True)
        with torch.no_grad():
            x[3], x[5], t[5] = x[0], x[1], t[1]
        return x, t

    return OpSpec(
        name=name,
        function=function,
        reference=reference,
        cases=(
            Case("rows", rows(9, 5, 7)),
            Case(
                "maps", lambda make: (make.normal(6, 3, 4, 2), make.normal(6, 2, 2, constant=True))
            ),
            Case("odd", rows(37, 20, 20)),
            Case("long rows", rows(19, 300, 260)),
            Case("many rows", rows(150, 6, 8)),
            Case("repeated rows", repeated),
        ),
        small_cases=(Case("rows", rows(4, 3, 2)), Case("more rows", rows(6, 2, 3))),
        hard_cases=_hard_pairs(hard),
        op_calls=((name.removesuffix("_loss"), lambda make: (*rows(5, 3, 4)(make), True)),),
        empty_cases=(
            Case("no rows", rows(0, 3, 4)),
            Case("one row", rows(1, 3, 4)),
            Case("no columns", rows(3, 0, 0)),
        ),
        errors=(
            ErrorCase(lambda make: ("x", make.normal(3, 2)), TypeError, "student to be a Tensor"),
            ErrorCase(lambda make: (make.normal(3), make.normal(3)), ValueError, r"\[N, \*S\]"),
            ErrorCase(
                lambda make: (make.normal(3, 2), make.normal(4, 2)),
                ValueError,
                "same number of rows, got 3 and 4",
            ),
        ),
    )


def _pairwise(name, function, reference, op_calls, hard=HARD):
    def pair(make):
        return make.normal(5, 4), make.normal(3, 4)

    return OpSpec(
        name=name,
        function=function,
        reference=reference,
        cases=(
            Case("pair", pair),
            Case("itself", lambda make: (make.normal(7, 3),)),
            Case("batched", lambda make: (make.normal(2, 3, 9, 5), make.normal(3, 17, 5))),
            Case("batched itself", lambda make: (make.normal(3, 21, 6),)),
            Case("long rows", lambda make: (make.normal(18, 300),)),
            Case("long pair", lambda make: (make.normal(18, 300), make.normal(33, 300))),
        ),
        small_cases=(
            Case("pair", lambda make: (make.normal(3, 2), make.normal(2, 2))),
            Case("itself", lambda make: (make.normal(2, 3, 2),)),
        ),
        op_calls=op_calls,
        hard_cases=tuple(
            case
            for kind in hard
            for case in (
                Case(kind, lambda make, kind=kind: (hard_rows(make, kind),)),
                Case(
                    f"{kind} pair",
                    lambda make, kind=kind: (hard_rows(make, kind), hard_rows(make, kind)[:5]),
                ),
            )
        ),
        empty_cases=(
            Case("no rows", lambda make: (make.normal(0, 3),)),
            Case("no rows in y", lambda make: (make.normal(4, 3), make.normal(0, 3))),
            Case("no batch", lambda make: (make.normal(0, 4, 3),)),
            Case("no columns", lambda make: (make.normal(4, 0), make.normal(3, 0))),
        ),
        errors=(
            ErrorCase(lambda make: (3.0,), TypeError, "expected x to be a Tensor, got float"),
            ErrorCase(lambda make: (make.normal(4),), ValueError, r"x of shape \[..., N, D\]"),
            ErrorCase(
                lambda make: (make.normal(4, 3), make.normal(4, 2)), ValueError, "same row length"
            ),
            ErrorCase(
                lambda make: (make.normal(2, 4, 3), make.normal(3, 4, 3)),
                ValueError,
                r"broadcast, got \[2\] and \[3\]",
            ),
        ),
    )


def _pair_calls(name, *options):
    saved = (lambda make: (make.normal(2, 3, 5).square(),)) if options else lambda make: ()
    itself = (lambda make: (make.normal(2, 3, 3).square(),)) if options else lambda make: ()
    return (
        (name, lambda make: (make.normal(2, 3, 4), make.normal(2, 5, 4), *options)),
        (name, lambda make: (make.normal(2, 3, 4), None, *options)),
        (
            f"{name}_backward",
            lambda make: (
                make.normal(2, 3, 5),
                make.normal(2, 3, 4),
                make.normal(2, 5, 4),
                *options,
                *saved(make),
            ),
        ),
        (
            f"{name}_backward",
            lambda make: (
                make.normal(2, 3, 3),
                make.normal(2, 3, 4),
                None,
                *options,
                *itself(make),
            ),
        ),
    )


PAIRWISE_ANGLE = OpSpec(
    name="pairwise_angle",
    function=kdops.pairwise_angle,
    reference=_angle_reference,
    cases=(
        Case("rows", lambda make: (make.normal(7, 3),)),
        Case("odd", lambda make: (make.normal(19, 6),)),
        Case("long rows", lambda make: (make.normal(9, 300),)),
    ),
    small_cases=(Case("rows", lambda make: (make.normal(4, 3),)),),
    hard_cases=tuple(Case(kind, lambda make, kind=kind: (hard_rows(make, kind),)) for kind in HARD),
    op_calls=(
        ("pairwise_angle", lambda make: (make.normal(5, 3),)),
        ("pairwise_angle_backward", lambda make: (make.normal(5, 5, 5), make.normal(5, 3))),
    ),
    empty_cases=(
        Case("no rows", lambda make: (make.normal(0, 3),)),
        Case("one row", lambda make: (make.normal(1, 3),)),
        Case("no columns", lambda make: (make.normal(3, 0),)),
    ),
    errors=(
        ErrorCase(lambda make: (make.normal(4),), ValueError, r"x of shape \[N, D\], got \[4\]"),
        ErrorCase(lambda make: (None,), TypeError, "expected x to be a Tensor, got NoneType"),
    ),
)
SPECS = (
    PAIRWISE_ANGLE,
    _pairwise(
        "pairwise_cosine",
        kdops.pairwise_cosine,
        _cosine_reference,
        _pair_calls("pairwise_cosine"),
    ),
    _pairwise(
        "pairwise_distance",
        kdops.pairwise_distance,
        _distance_reference,
        _pair_calls("pairwise_distance", False),
    ),
    _pairwise(
        "pairwise_distance[squared]",
        partial(kdops.pairwise_distance, squared=True),
        partial(_distance_reference, squared=True),
        _pair_calls("pairwise_distance", True),
        hard=("clusters", "far"),  # other squares are zero or infinite
    ),
    _relation_loss("rkd_angle_loss", kdops.rkd_angle_loss, _rkd_angle_reference),
    _relation_loss("rkd_distance_loss", kdops.rkd_distance_loss, _rkd_distance_reference),
    _relation_loss(
        "similarity_loss",
        kdops.similarity_loss,
        _similarity_reference,
        hard=("denormal",),  # of clusters its gradient is a small rest in every form
    ),
)
