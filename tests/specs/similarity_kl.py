"""Specs of the similarity KL; references written out with one softmax per row."""

from functools import partial

import torch

import kdops
from kdops.ops.similarity_kl import pkt_loss
from kdops.testing import Case, ErrorCase, OpSpec
from specs.relation import hard_rows


def _logits(x, y, similarity, factor):
    if similarity == "dot":
        return x @ y.mT * (factor * x.shape[-1] ** -0.5)
    norms = [r.square().sum(-1, keepdim=True).clamp(min=torch.finfo(r.dtype).tiny) for r in (x, y)]
    return x / norms[0].sqrt() @ (y / norms[1].sqrt()).mT * factor


def kl_of_rows(student, teacher, keys=None, own=1.0, theirs=1.0, similarity="cosine", out=None):
    """(..., N): KL(teacher's || student's) of every row; factors of both logits."""
    y, v = (student, teacher) if keys is None else keys
    logits = [
        _logits(student, y, similarity, own),
        _logits(teacher.detach(), v.detach(), similarity, theirs),
    ]
    if out is not None:
        logits = [x.masked_fill(out, -1e30) for x in logits]
    log_s, log_t = (x.log_softmax(-1) for x in logits)
    return (log_t.exp() * (log_t - log_s)).sum(-1)


def _reference(student, teacher, keys=None, **options):
    rows = kl_of_rows(student, teacher, keys, **options)
    return rows.sum() / max(rows.numel(), 1)


def _without_self(student, teacher, **options):
    return _reference(
        student, teacher, out=torch.eye(student.shape[-2], dtype=torch.bool), **options
    )


def _masked(student, teacher, marks):
    """One batch entry after the other, without its padding."""
    entries = [
        kl_of_rows(s[m != 0], t[m != 0])
        for s, t, m in zip(
            student.flatten(0, -3), teacher.flatten(0, -3), marks.flatten(0, -2), strict=True
        )
    ]
    rows = torch.cat(entries)
    return rows.sum() / max(len(rows), 1)


def _pair(make, *shape, width):
    return make.normal(*shape), make.normal(*shape[:-1], width, constant=True)


def _marks(make, *shape):
    """A mask of numbers, of which about two thirds say yes, and the first."""
    marks = (make.uniform(*shape, constant=True).detach() < 0.67).double()
    marks[..., 0] = 1
    return make.of(marks, constant=True)


def _queue(student, teacher, own, theirs, **options):
    return kdops.similarity_kl_loss(student, teacher, keys=(own, theirs), **options)


def _call(make, keys, mask, *options):
    student, teacher = _pair(make, 2, 5, 3, width=4)
    own, theirs = _pair(make, 2, 7, 3, width=4) if keys else (None, None)
    marks = _marks(make, 2, 5) > 0 if mask else None
    return (student, own, teacher, theirs, marks, 2.0, 3.0, *options)


def _pkt_reference(student, teacher, eps=1e-7):
    def shares(x):
        norm = x.square().sum(1, keepdim=True)
        zero = norm == 0
        x = torch.where(zero, 0.0, x / (torch.where(zero, 1.0, norm).sqrt() + eps))
        similarity = (x @ x.T + 1) / 2
        return similarity / similarity.sum(1, keepdim=True)

    p, q = shares(teacher.detach()), shares(student)
    return (p * torch.log((p + eps) / (q + eps))).sum() / max(p.numel(), 1)


ROWS = OpSpec(
    name="similarity_kl_loss",
    function=kdops.similarity_kl_loss,
    reference=_reference,
    cases=(
        Case("rows", lambda make: _pair(make, 33, 5, width=9)),
        Case("batch", lambda make: _pair(make, 3, 20, 70, width=3)),
        Case("heads", lambda make: _pair(make, 2, 3, 17, 4, width=4)),
        Case("tiles", lambda make: _pair(make, 300, 6, width=5)),
        Case("two", lambda make: _pair(make, 2, 3, width=3)),
    ),
    op_calls=(("similarity_kl", lambda make: _call(make, False, False, True, True, True, False)),),
    small_cases=(
        Case("rows", lambda make: _pair(make, 4, 2, width=3)),
        Case("batch", lambda make: _pair(make, 2, 3, 3, width=2)),
    ),
    hard_cases=tuple(
        Case(
            kind, lambda make, kind=kind: (hard_rows(make, kind), make.normal(12, 4, constant=True))
        )
        for kind in ("clusters", "far", "very far", "graded", "denormal")
    ),
    empty_cases=(
        Case("no rows", lambda make: _pair(make, 0, 3, width=2)),
        Case("no batch", lambda make: _pair(make, 0, 4, 3, width=2)),
        Case("one row", lambda make: _pair(make, 1, 3, width=2)),
        Case("no columns", lambda make: _pair(make, 4, 0, width=2)),
        Case("no rows of zero width", lambda make: _pair(make, 2, 0, 0, width=0)),
    ),
    errors=(
        ErrorCase(
            lambda make: (make.normal(3), make.normal(3)),
            ValueError,
            r"student of shape \[\.\.\., N, D\], got \[3\] \(1-D\)",
        ),
        ErrorCase(
            lambda make: (make.normal(2, 3, 4), make.normal(3, 2, 4)),
            ValueError,
            r"with the same rows, got \[2, 3, 4\] and \[3, 2, 4\]",
        ),
        ErrorCase(lambda make: (make.normal(3, 2), None), TypeError, "teacher to be a Tensor"),
    ),
)
WITHOUT_SELF = OpSpec(
    name="similarity_kl_loss[without self]",
    function=partial(
        kdops.similarity_kl_loss, temperature=0.1, teacher_temperature=0.2, self_pairs=False
    ),
    reference=partial(_without_self, own=10.0, theirs=5.0),
    cases=(
        Case("rows", lambda make: _pair(make, 33, 5, width=9)),
        Case("tiles", lambda make: _pair(make, 2, 270, 6, width=5)),
    ),
    op_calls=(("similarity_kl", lambda make: _call(make, False, False, True, False, True, False)),),
    small_cases=(Case("rows", lambda make: _pair(make, 4, 2, width=3)),),
    empty_cases=(
        Case("no rows", lambda make: _pair(make, 0, 3, width=2)),
        Case("one row", lambda make: _pair(make, 3, 1, 3, width=2)),
    ),
    errors=(
        ErrorCase(
            lambda make: (make.normal(3, 2), make.normal(4, 2)), ValueError, "with the same rows"
        ),
    ),
)
MASKED = OpSpec(
    name="similarity_kl_loss[mask]",
    function=lambda student, teacher, marks: kdops.similarity_kl_loss(student, teacher, mask=marks),
    reference=_masked,
    cases=(
        Case("tokens", lambda make: (*_pair(make, 3, 40, 5, width=9), _marks(make, 3, 40))),
        Case("heads", lambda make: (*_pair(make, 2, 2, 9, 4, width=4), _marks(make, 2, 2, 9))),
    ),
    op_calls=(("similarity_kl", lambda make: _call(make, False, True, False, False, True, False)),),
    small_cases=(
        Case("tokens", lambda make: (*_pair(make, 2, 4, 2, width=3), _marks(make, 2, 4))),
    ),
    empty_cases=(
        Case("padding", lambda make: (*_pair(make, 2, 4, 3, width=2), 0 * _marks(make, 2, 4))),
        Case("no rows", lambda make: (*_pair(make, 2, 0, 3, width=2), make.uniform(2, 0))),
    ),
    errors=(
        ErrorCase(
            lambda make: (make.normal(2, 3, 4), make.normal(2, 3, 4), make.uniform(3)),
            ValueError,
            r"mask of shape \[2, 3\], the rows of student, got \[3\] \(1-D\)",
        ),
    ),
)
QUEUE = OpSpec(
    name="similarity_kl_loss[keys]",
    function=partial(_queue, similarity="dot", scale=0.7),
    reference=lambda s, t, own, theirs: _reference(
        s,
        t,
        (own, theirs),
        own=0.7 * s.shape[-1] ** 0.5,
        theirs=0.7 * t.shape[-1] ** 0.5,
        similarity="dot",
    ),
    cases=(
        Case(
            "attention",
            lambda make: (*_pair(make, 2, 20, 5, width=3), *_pair(make, 2, 33, 5, width=3)),
        ),
        Case("queue", lambda make: (*_pair(make, 7, 4, width=4), *_pair(make, 250, 4, width=4))),
        Case("shared", lambda make: (*_pair(make, 3, 6, 4, width=2), *_pair(make, 9, 4, width=2))),
    ),
    op_calls=(("similarity_kl", lambda make: _call(make, True, False, True, True, True, True)),),
    small_cases=(
        Case("queue", lambda make: (*_pair(make, 3, 2, width=3), *_pair(make, 4, 2, width=3))),
    ),
    empty_cases=(
        Case("no keys", lambda make: (*_pair(make, 3, 2, width=2), *_pair(make, 0, 2, width=2))),
        Case("no rows", lambda make: (*_pair(make, 0, 2, width=2), *_pair(make, 3, 2, width=2))),
    ),
    errors=(
        ErrorCase(
            lambda make: (make.normal(2, 3, 4),) * 2 + (make.normal(3, 9, 4),) * 2,
            ValueError,
            r"student's keys of shape \[M, 4\] or \[2, 'M', 4\], got \[3, 9, 4\]",
        ),
        ErrorCase(
            lambda make: (make.normal(3, 4),) * 2 + (make.normal(9, 4), make.normal(8, 4)),
            ValueError,
            r"as many keys of the student as of the teacher, got \[9, 4\] and \[8, 4\]",
        ),
    ),
)
PKT = OpSpec(
    name="pkt_loss",
    function=pkt_loss,
    reference=_pkt_reference,
    cases=(
        Case("rows", lambda make: _pair(make, 33, 5, width=9)),
        Case("tiles", lambda make: _pair(make, 270, 6, width=70)),
        Case("two", lambda make: _pair(make, 2, 3, width=3)),
    ),
    op_calls=(("pkt", lambda make: (*_pair(make, 5, 3, width=4), 1e-7, True)),),
    small_cases=(Case("rows", lambda make: _pair(make, 4, 2, width=3)),),
    hard_cases=tuple(
        Case(
            kind, lambda make, kind=kind: (hard_rows(make, kind), make.normal(12, 4, constant=True))
        )
        for kind in ("clusters", "far", "very far")
    ),
    empty_cases=(
        Case("no rows", lambda make: _pair(make, 0, 3, width=2)),
        Case("one row", lambda make: _pair(make, 1, 3, width=2)),
        Case("no columns", lambda make: _pair(make, 4, 0, width=2)),
    ),
    errors=(
        ErrorCase(
            lambda make: (make.normal(3, 2), make.normal(4, 2)),
            ValueError,
            "same number of rows, got 3 and 4",
        ),
        ErrorCase(
            lambda make: (make.normal(2, 3, 4), make.normal(2, 3, 4)),
            ValueError,
            r"student of shape \[N, D\], got \[2, 3, 4\]",
        ),
    ),
)
SPECS = (ROWS, WITHOUT_SELF, MASKED, QUEUE, PKT)
