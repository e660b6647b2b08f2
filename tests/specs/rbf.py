"""Specs of the RBF affinities and losses; references written out over differences of rows."""

import torch

import kdops
from kdops.testing import Case, ErrorCase, OpSpec
from specs.relation import hard_rows


def _rbf_reference(x, y=None, gamma=1.0):
    y = x if y is None else y
    squared = (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)
    gamma = torch.as_tensor(gamma, dtype=torch.float64).reshape(-1, 1, 1)
    return torch.exp(-gamma * squared).view(*x.shape[:-1], y.shape[-2])


def _rbf_loss_reference(student, teacher, gamma=1.0):
    pairs = max(student.shape[0] ** 2, 1)
    difference = _rbf_reference(student, gamma=gamma) - _rbf_reference(
        teacher.detach(), gamma=gamma
    )
    return difference.square().sum() / pairs


def _svd_rbf_reference(sf, sb, tf, tb, scale=None, beta=8.0):
    def kernel(front, back):
        return torch.exp(-(back.unsqueeze(2) - front.unsqueeze(1)).square() / beta)

    scale = 1 / max(sf.shape[0], 1) if scale is None else scale
    return scale * (kernel(sf, sb) - kernel(tf.detach(), tb.detach())).square().sum()


def _levels(make, batch, front, back, k, size=0.3):
    """Students that need a gradient and teachers that do not, entries of about `size`."""
    sf, sb = make.normal(batch, front, k), make.normal(batch, back, k)
    tf, tb = make.normal(batch, front, k, constant=True), make.normal(batch, back, k, constant=True)
    return tuple(make.of(t.detach().double() * size, t is tf or t is tb) for t in (sf, sb, tf, tb))


def _rbf_affinity(gamma):
    return OpSpec(
        name=f"rbf_affinity[{gamma}]",
        function=lambda x, y=None, gamma=gamma: kdops.rbf_affinity(x, y, gamma=gamma),
        reference=lambda x, y=None, gamma=gamma: _rbf_reference(x, y, gamma),
        cases=(
            Case("pair", lambda make: (make.normal(17, 5), make.normal(9, 5))),
            Case("symmetric", lambda make: (make.normal(33, 7),)),
            Case("batch", lambda make: (make.normal(3, 20, 4), make.normal(3, 50, 4))),
            Case("batches", lambda make: (make.normal(2, 3, 10, 6),)),
            Case("bandwidth", lambda make: (make.normal(19, 3), None, make.uniform(1) + 0.1)),
            Case("bandwidths", lambda make: (make.normal(2, 6, 3), None, make.uniform(2) + 0.1)),
            Case("one", lambda make: (make.normal(1, 1), make.normal(1, 1))),
        ),
        op_calls=(
            ("rbf_affinity", lambda make: (make.normal(2, 5, 3), make.normal(2, 7, 3), None, 0.5)),
            ("rbf_affinity", lambda make: (make.normal(2, 5, 3), None, make.uniform(2) + 1, 0.0)),
            (
                "rbf_affinity_backward",
                lambda make: (
                    make.normal(2, 5, 7),
                    make.normal(2, 5, 3),
                    make.normal(2, 7, 3),
                    make.uniform(2) + 1,
                    0.0,
                    make.uniform(2, 5, 7),
                ),
            ),
            (
                "rbf_affinity_backward",
                lambda make: (
                    make.normal(2, 5, 5),
                    make.normal(2, 5, 3),
                    None,
                    None,
                    1.0,
                    make.uniform(2, 5, 5),
                ),
            ),
        ),
        small_cases=(
            Case("pair", lambda make: (make.normal(3, 2), make.normal(4, 2))),
            Case("symmetric", lambda make: (make.normal(4, 2),)),
            Case("bandwidth", lambda make: (make.normal(3, 2), None, make.uniform(1) + 0.5)),
        ),
        hard_cases=tuple(
            case
            for kind in ("clusters", "far", "very far", "graded", "denormal")
            for case in (
                Case(kind, lambda make, kind=kind: (hard_rows(make, kind), None, make.uniform(1))),
                Case(
                    f"{kind} pair",
                    lambda make, kind=kind: (hard_rows(make, kind), hard_rows(make, kind)[:5]),
                ),
            )
            if case.label != "denormal"  # the gradient of gamma is of the size of its square
        ),
        empty_cases=(
            Case("no rows", lambda make: (make.normal(0, 3), make.normal(4, 3))),
            Case("no others", lambda make: (make.normal(3, 2), make.normal(0, 2))),
            Case("no columns", lambda make: (make.normal(3, 0),)),
            Case("no batch", lambda make: (make.normal(0, 3, 2),)),
        ),
        errors=(
            ErrorCase(lambda make: (make.normal(3),), ValueError, r"x of shape \[\.\.\., N, D\]"),
            ErrorCase(
                lambda make: (make.normal(3, 2), make.normal(3, 4)),
                ValueError,
                "leading dimensions",
            ),
            ErrorCase(lambda make: (make.normal(3, 2), None, 0.0), ValueError, "gamma > 0"),
            ErrorCase(lambda make: (make.normal(3, 2), None, float("inf")), ValueError, "finite"),
            ErrorCase(
                # on a device the sign would have to be waited for: it is not asked
                lambda make: (make.normal(3, 2), None, torch.tensor([-1.0])),
                ValueError,
                "gamma > 0",
            ),
            ErrorCase(
                lambda make: (make.normal(3, 2), None, make.uniform(2) + 1),
                ValueError,
                "gamma with one element",
            ),
            ErrorCase(
                lambda make: (make.normal(3, 2), make.normal(3, 2).float()), TypeError, "dtype of x"
            ),
        ),
    )


RBF_AFFINITY_LOSS = OpSpec(
    name="rbf_affinity_loss",
    function=lambda s, t, gamma=0.2: kdops.rbf_affinity_loss(s, t, gamma=gamma),
    reference=lambda s, t, gamma=0.2: _rbf_loss_reference(s, t, gamma),
    cases=(
        Case("loss", lambda make: (make.normal(33, 5), make.normal(33, 9, constant=True))),
        Case("wide", lambda make: (make.normal(18, 70), make.normal(18, 3, constant=True))),
        Case("tiles", lambda make: (make.normal(150, 4), make.normal(150, 4, constant=True))),
        Case(
            "bandwidth",
            lambda make: (make.normal(20, 3), make.normal(20, 4, constant=True), make.uniform(1)),
        ),
        Case("two", lambda make: (make.normal(2, 1), make.normal(2, 1, constant=True))),
    ),
    op_calls=(
        (
            "rbf_affinity_loss",
            lambda make: (make.normal(5, 3), None, make.normal(5, 4, constant=True), 0.3, True),
        ),
        (
            "rbf_affinity_loss",
            lambda make: (
                make.normal(5, 3),
                make.of(torch.tensor(0.4)),
                make.normal(5, 4, constant=True),
                0.0,
                True,
            ),
        ),
    ),
    small_cases=(
        Case("loss", lambda make: (make.normal(4, 2), make.normal(4, 3, constant=True))),
        Case(
            "bandwidth",
            lambda make: (
                make.normal(4, 2),
                make.normal(4, 3, constant=True),
                make.uniform(1) + 0.3,
            ),
        ),
    ),
    hard_cases=tuple(
        Case(
            kind, lambda make, kind=kind: (hard_rows(make, kind), make.normal(12, 4, constant=True))
        )
        for kind in ("clusters", "far", "very far", "graded", "denormal")
    ),
    empty_cases=(
        Case("no rows", lambda make: (make.normal(0, 3), make.normal(0, 2, constant=True))),
        Case("one row", lambda make: (make.normal(1, 3), make.normal(1, 2, constant=True))),
        Case("no columns", lambda make: (make.normal(4, 0), make.normal(4, 2, constant=True))),
    ),
    errors=(
        ErrorCase(
            lambda make: (make.normal(3, 2), make.normal(4, 2)),
            ValueError,
            "same number of rows, got 3 and 4",
        ),
        ErrorCase(lambda make: (make.normal(3), make.normal(3)), ValueError, "student of shape"),
        ErrorCase(
            lambda make: (make.normal(3, 2), make.normal(3, 2), 0.0), ValueError, "gamma > 0"
        ),
        ErrorCase(
            lambda make: (make.normal(3, 2), make.normal(3, 2), make.uniform(2) + 1),
            ValueError,
            "gamma with one element",
        ),
    ),
)

SVD_RBF_LOSS = OpSpec(
    name="svd_rbf_loss",
    function=kdops.svd_rbf_loss,
    reference=_svd_rbf_reference,
    cases=(
        Case("level", lambda make: _levels(make, 3, 16, 40, 4)),
        Case("odd", lambda make: _levels(make, 2, 33, 17, 3)),
        Case("large values", lambda make: _levels(make, 2, 21, 34, 2, size=3.0)),
        Case("huge values", lambda make: _levels(make, 2, 9, 7, 2, size=50.0)),
        Case("one", lambda make: _levels(make, 1, 1, 1, 1)),
    ),
    op_calls=(("svd_rbf_loss", lambda make: (*_levels(make, 2, 5, 7, 3), 8.0, 2, True)),),
    small_cases=(
        Case("level", lambda make: _levels(make, 2, 3, 4, 2, size=0.7)),
        Case("large values", lambda make: _levels(make, 1, 3, 2, 1, size=4.0)),
    ),
    empty_cases=(
        Case("no batch", lambda make: _levels(make, 0, 3, 4, 2)),
        Case("no component", lambda make: _levels(make, 2, 3, 4, 0)),
        Case("no rows", lambda make: _levels(make, 2, 0, 4, 2)),
    ),
    errors=(
        ErrorCase(lambda make: (make.normal(3, 2),) * 4, ValueError, "student_front of shape"),
        ErrorCase(
            lambda make: (*_levels(make, 2, 3, 4, 2)[:3], make.normal(2, 5, 2)),
            ValueError,
            r"same shape at each level, got \[2, 4, 2\] and \[2, 5, 2\]",
        ),
        ErrorCase(
            lambda make: (make.normal(2, 3, 2), make.normal(1, 4, 2)) * 2, ValueError, "batch size"
        ),
        ErrorCase(
            lambda make: (make.normal(2, 3, 2), make.normal(2, 4, 3)) * 2,
            ValueError,
            "number of components",
        ),
    ),
)


SPECS = (_rbf_affinity(0.7), RBF_AFFINITY_LOSS, SVD_RBF_LOSS)
