"""Specs of the relations between tokens; references written out in full."""

from functools import partial

import torch

import kdops
from kdops.testing import Case, ErrorCase, OpSpec
from specs.relation import hard_rows


def _unit(x):
    norms = x.square().sum(-1, keepdim=True)
    zero = norms == 0
    return torch.where(zero, 0.0, x / torch.where(zero, 1.0, norms).sqrt())


def _anchoring_reference(student, teacher, negatives):
    s, t = _unit(student), _unit(teacher.detach())
    g_s, g_t = s @ s.mT, t @ t.mT
    if negatives == "drop":
        g_s = torch.where(g_s < 0, 0.0, g_s)
    if negatives != "keep":
        g_t = torch.where(g_t < 0, 0.0, g_t)
    return (g_s - g_t).square().sum() / max(g_s.numel(), 1)


def _tokens(*sizes):
    """Sizes (..., N, D_S, D_T)."""

    def build(make):
        *rows, width, others = sizes
        return make.normal(*rows, width), make.normal(*rows, others, constant=True)

    return build


def _repeated(make):
    s, t = make.normal(2, 9, 4), make.normal(2, 9, 6, constant=True)
    with torch.no_grad():
        s[0, 3], s[1, 5], t[0, 5] = s[0, 0], s[1, 1], t[0, 1]
    return s, t


def _offset(make):
    """Tokens with a large common part, as those of real networks."""
    return make.of(make.normal(2, 40, 6).detach() + 1), make.normal(2, 40, 5, constant=True)


def _alike(make):
    """The products of features cancel."""
    s = make.normal(1, 60, 4)
    noise = make.normal(1, 60, 4, constant=True)
    return s, make.of(s.detach() + 0.02 * noise, constant=True)


def _anchoring(negatives):
    number = ("keep", "drop", "drop_teacher").index(negatives)
    return OpSpec(
        name=f"gram_anchoring_loss[{negatives}]",
        function=partial(kdops.gram_anchoring_loss, negatives=negatives),
        reference=partial(_anchoring_reference, negatives=negatives),
        cases=(
            Case("tokens", _tokens(3, 17, 5, 7)),
            Case("one image", _tokens(33, 6, 3)),
            Case("few features", _tokens(2, 150, 9, 4)),
            Case("two dimensions of images", _tokens(2, 2, 12, 4, 20)),
            Case("tiles", _tokens(1, 260, 7, 300)),
            Case("blocks of features", _tokens(1, 400, 100, 110)),
            Case("repeated tokens", _repeated),
            Case("common part", _offset),
            Case("alike", _alike),
        ),
        small_cases=(
            Case("tokens", _tokens(2, 4, 3, 2)),
            Case("few features", _tokens(1, 7, 2, 2)),
        ),
        hard_cases=tuple(
            Case(
                kind,
                lambda make, kind=kind: (hard_rows(make, kind), make.normal(12, 4, constant=True)),
            )
            for kind in ("clusters", "far", "very far", "graded", "denormal")
        ),
        op_calls=(
            (
                "gram_anchoring_loss",
                lambda make: (*_tokens(2, 5, 3, 4)(make), None, number, True),
            ),
            (
                "gram_anchoring_loss",
                lambda make: (
                    *_tokens(2, 5, 3, 4)(make),
                    make.uniform(2, constant=True),
                    number,
                    True,
                ),
            ),
        ),
        empty_cases=(
            Case("no images", _tokens(0, 3, 2, 2)),
            Case("no tokens", _tokens(2, 0, 3, 4)),
            Case("one token", _tokens(2, 1, 3, 4)),
            Case("no features", _tokens(2, 3, 0, 0)),
        ),
        errors=(
            ErrorCase(lambda make: ("x", make.normal(3, 2)), TypeError, "student to be a Tensor"),
            ErrorCase(
                lambda make: (make.normal(3), make.normal(3)), ValueError, r"\[\.\.\., N, D\]"
            ),
            ErrorCase(
                lambda make: (make.normal(2, 3, 4), make.normal(2, 5, 4)),
                ValueError,
                r"number of tokens, got \[2, 3, 4\] and \[2, 5, 4\]",
            ),
        ),
    )


def _cka_reference(student, teacher, centered):
    def kernel(x):
        x = x - x.mean(-2, keepdim=True) if centered else x
        return x @ x.mT

    def size(k):
        return k.square().sum((-2, -1))

    k_s, k_t = kernel(student), kernel(teacher.detach())
    squares = size(k_s) * size(k_t)
    inner = (k_s * k_t).sum((-2, -1))
    zero = squares == 0
    cka = torch.where(zero, 0.0, inner / torch.where(zero, 1.0, squares).sqrt())
    return (1 - cka).sum() / max(cka.numel(), 1)


def _cka(centered):
    return OpSpec(
        name=f"cka_loss[{'centered' if centered else 'as it is'}]",
        function=partial(kdops.cka_loss, centered=centered),
        reference=partial(_cka_reference, centered=centered),
        cases=(
            Case("leading dimensions", _tokens(2, 3, 11, 6, 30)),
            Case("rows", _tokens(9, 20, 13)),
            Case("columns", _tokens(60, 7, 5)),
            Case("three rows", _tokens(3, 5, 3)),
            Case("common part", _offset),
            Case("alike", _alike),
        ),
        small_cases=(
            Case("rows", _tokens(2, 3, 4, 3)),
            Case("columns", _tokens(8, 2, 3)),
        ),
        hard_cases=tuple(
            Case(
                kind,
                lambda make, kind=kind: (hard_rows(make, kind), make.normal(12, 4, constant=True)),
            )
            for kind in (("clusters",) if centered else ()) + ("far", "very far", "denormal")
        ),
        op_calls=(
            ("cka_loss", lambda make: (*_tokens(2, 5, 3, 4)(make), None, centered, True)),
            (
                "cka_loss",
                lambda make: (
                    *_tokens(2, 5, 3, 4)(make),
                    make.uniform(2, 5, constant=True) > 0.5,
                    centered,
                    True,
                ),
            ),
        ),
        empty_cases=(
            Case("no matrices", _tokens(0, 3, 2, 2)),
            Case("no rows", _tokens(2, 0, 3, 4)),
            Case("one row", _tokens(2, 1, 3, 4)),
            Case("no columns", _tokens(2, 3, 0, 0)),
            Case("no columns of one", _tokens(2, 3, 0, 4)),
        ),
        errors=(
            ErrorCase(lambda make: ("x", make.normal(3, 2)), TypeError, "cka_loss: expected stud"),
            ErrorCase(
                lambda make: (make.normal(3, 4), make.normal(5, 4)), ValueError, "number of tokens"
            ),
        ),
    )


SPECS = (
    _cka(False),
    _cka(True),
    *(_anchoring(negatives) for negatives in ("drop", "drop_teacher", "keep")),
)
