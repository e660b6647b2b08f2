"""Specs of Gram and FSP matrices and of the losses between them; references written out in full."""

from functools import partial

import torch
import torch.nn.functional as F

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
        ("gram", lambda make: (make.normal(2, 3, 4), make.normal(2, 5, 4))),
        ("gram", lambda make: (make.normal(2, 3, 4), None)),
        (
            "gram_backward",
            lambda make: (make.normal(2, 3, 5), make.normal(2, 3, 4), make.normal(2, 5, 4)),
        ),
        ("gram_backward", lambda make: (make.normal(2, 3, 3), make.normal(2, 3, 4), None)),
        ("gram", lambda make: (make.normal(2, 3, 2, 4), make.normal(2, 5, 2, 4))),
        (
            "gram_backward",
            lambda make: (
                make.normal(2, 3, 5),
                make.normal(2, 3, 2, 4),
                make.normal(2, 5, 2, 4),
            ),
        ),
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


def _fsp_matrix_spec(pool):
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


def _fsp_loss(s1, s2, t1, t2, **options):
    return kdops.fsp_loss((s1, s2), (t1, t2), **options)


def _fsp_loss_reference(s1, s2, t1, t2, variant="paper"):
    def fsp(f1, f2):
        size = tuple(min(a, b) for a, b in zip(f1.shape[2:], f2.shape[2:], strict=True))
        f1, f2 = (F.adaptive_max_pool2d(f, size).flatten(2) for f in (f1, f2))
        return torch.einsum("bil,bjl->bij", f1, f2) / f1.shape[2]

    difference = fsp(s1, s2) - fsp(t1.detach(), t2.detach())
    if variant == "mse":
        return difference.square().mean()
    if variant == "columns":
        return difference.square().sum(1).sqrt().sum() / len(difference)
    return difference.square().sum() / (2 * len(difference))


def _four_maps(make, batch, c1, c2, size1, size2=None, teacher1=None):
    size2 = size2 or size1
    student = (make.normal(batch, c1, *size1), make.normal(batch, c2, *size2))
    teacher = (
        make.normal(batch, c1, *(teacher1 or size1), constant=True),
        make.normal(batch, c2, *size2, constant=True),
    )
    return (*student, *teacher)


def _gram_loss_call(make, c1, c2, length, *options):
    student = (make.normal(2, c1, length), make.normal(2, c2, length))
    teacher = (
        make.normal(2, c1, length, constant=True),
        make.normal(2, c2, length, constant=True),
    )
    return (student[0], student[1], *teacher, *options)


def _fsp_loss_spec(variant):
    number = ("paper", "mse", "columns").index(variant)
    calls = (
        lambda make: _gram_loss_call(make, 3, 4, 5, number, False, True),
        lambda make: _gram_loss_call(make, 6, 7, 2, min(number, 1), True, True),
        lambda make: (
            *(x.movedim(-1, 1) for x in _four_maps(make, 2, 2, 2, (3, 4))),
            number,
            False,
            True,
        ),
    )
    return OpSpec(
        name=f"fsp_loss[{variant}]",
        function=partial(_fsp_loss, variant=variant),
        reference=partial(_fsp_loss_reference, variant=variant),
        cases=(
            Case("wide", lambda make: _four_maps(make, 3, 33, 29, (3, 2))),
            Case("long", lambda make: _four_maps(make, 2, 7, 9, (12, 13))),
            Case("pooled", lambda make: _four_maps(make, 2, 5, 6, (8, 6), (4, 6), (10, 7))),
        ),
        small_cases=(
            Case("by channels", lambda make: _four_maps(make, 2, 2, 3, (2, 2))),
            Case("by positions", lambda make: _four_maps(make, 2, 8, 7, (1, 2))),
        ),
        op_calls=tuple(("gram_loss", call) for call in calls),
        empty_cases=(Case("no batch", lambda make: _four_maps(make, 0, 3, 4, (2, 2))),),
        errors=(
            ErrorCase(
                lambda make: (*_four_maps(make, 2, 3, 4, (2, 2))[:3], make.normal(2, 5, 2, 2)),
                ValueError,
                r"fsp_loss: level 1: expected student and teacher with equal channels.*1x1",
            ),
            ErrorCase(
                lambda make: (None, *_four_maps(make, 2, 3, 4, (2, 2))[1:]),
                TypeError,
                r"fsp_loss: expected student\[0\] to be a Tensor",
            ),
        ),
    )


def _nst_reference(student, teacher, kernel="poly", degree=2, c=0.0, bandwidth=None):
    size = tuple(min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
    s, t = (F.adaptive_avg_pool2d(f, size).flatten(2) for f in (student, teacher.detach()))
    s, t = (F.normalize(f, dim=2) for f in (s, t))

    def distances(x, y):
        return (x.unsqueeze(2) - y.unsqueeze(1)).square().sum(3)

    if bandwidth is None:
        width = distances(s, t).mean((1, 2)).detach()[:, None, None]
    else:
        width = bandwidth**2

    def k(x, y):
        if kernel == "gaussian":
            return torch.exp(-distances(x, y) / (2 * width)).mean((1, 2))
        product = torch.einsum("bil,bjl->bij", x, y)
        return ((product + c) ** degree if kernel == "poly" else product).mean((1, 2))

    return (k(t, t) + k(s, s) - 2 * k(s, t)).mean()


def two_maps(make, batch, c_s, c_t, size, teacher_size=None):
    teacher = make.normal(batch, c_t, *(teacher_size or size), constant=True)
    return make.normal(batch, c_s, *size), teacher


_NST_CALLS = tuple(
    (
        "nst_loss",
        lambda make, c=c, by=by: (make.normal(2, c, 6), make.normal(2, 2, 6), by, True),
    )
    for c, by in ((2, True), (5, False))
) + (
    # tokens: the gradient lies as they do
    ("nst_loss", lambda make: (make.normal(2, 6, 5).mT, make.normal(2, 2, 6), False, True)),
)


def _nst_spec(label, skips=None, **options):
    return OpSpec(
        skips=skips or {},
        name=f"nst_loss[{label}]",
        function=partial(kdops.nst_loss, **options),
        reference=partial(_nst_reference, **options),
        cases=(
            Case("wide", lambda make: two_maps(make, 3, 17, 17, (3, 3))),
            Case("long, unequal", lambda make: two_maps(make, 2, 4, 6, (5, 7))),
            Case("pooled", lambda make: two_maps(make, 2, 9, 5, (6, 4), (3, 4))),
        ),
        small_cases=(
            Case("wide", lambda make: two_maps(make, 2, 5, 4, (2, 1))),
            Case("long", lambda make: two_maps(make, 2, 2, 2, (3, 3))),
        ),
        empty_cases=(Case("no batch", lambda make: two_maps(make, 0, 3, 4, (2, 2))),),
        op_calls=() if options else _NST_CALLS,
        errors=(
            ErrorCase(
                lambda make: (make.normal(2, 3, 4, 4), make.normal(3, 3, 4, 4)),
                ValueError,
                "nst_loss: expected student and teacher with the same batch size, got 2 and 3",
            ),
            ErrorCase(lambda make: (make.normal(2, 3), make.normal(2, 3)), ValueError, "student"),
        ),
    )


SPECS = (
    GRAM,
    _fsp_matrix_spec("max"),
    _fsp_matrix_spec("avg"),
    _fsp_loss_spec("columns"),
    _fsp_loss_spec("mse"),
    _fsp_loss_spec("paper"),
    _nst_spec(
        "gaussian",
        kernel="gaussian",
        skips=dict.fromkeys(
            ("gradcheck", "gradgradcheck"),
            "the default bandwidth is a constant of the gradient; 'gaussian, fixed' is checked",
        ),
    ),
    _nst_spec("gaussian, fixed", kernel="gaussian", bandwidth=0.8),
    _nst_spec("linear", kernel="linear"),
    _nst_spec("poly, c=1, d=3", degree=3, c=1.0),
    _nst_spec("poly"),
)
