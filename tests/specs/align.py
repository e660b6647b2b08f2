"""Spec of the alignment of singular vectors."""

import torch

import kdops
from kdops.testing import Case, ErrorCase, OpSpec


def _align_backward_arguments(make):
    choice = torch.tensor([[1, -3], [3, 3]], device=make.device)
    return make.normal(2, 5, 2), choice, 3


def _align_reference(student, teacher):
    cosine = torch.einsum("bdi,bdj->bij", student, teacher)
    best = cosine.abs().max(1).indices
    columns = []
    for j in range(teacher.shape[2]):
        chosen = torch.stack([s[:, i] for s, i in zip(student, best[:, j], strict=True)])
        sign = torch.stack([c[i, j] for c, i in zip(cosine, best[:, j], strict=True)]).sign()
        columns.append(chosen * sign.detach()[:, None])
    return torch.stack(columns, -1)


ALIGN = OpSpec(
    name="align_singular_vectors",
    function=kdops.align_singular_vectors,
    reference=_align_reference,
    cases=(
        Case("more", lambda make: (make.normal(4, 9, 5), make.normal(4, 9, 2, constant=True))),
        Case("fewer", lambda make: (make.normal(3, 6, 1), make.normal(3, 6, 3, constant=True))),
    ),
    small_cases=(
        Case("more", lambda make: (make.normal(2, 4, 3), make.normal(2, 4, 2, constant=True))),
    ),
    op_calls=(
        (
            "align_vectors",
            lambda make: (make.normal(2, 5, 3).mT, make.normal(2, 3, 4, constant=True)),
        ),
        ("align_vectors_backward", _align_backward_arguments),
    ),
    empty_cases=(Case("no batch", lambda make: (make.normal(0, 5, 4), make.normal(0, 5, 2))),),
    errors=(
        ErrorCase(
            lambda make: (make.normal(2, 5, 3), make.normal(2, 4, 3)),
            ValueError,
            "same vector length D, got 5 and 4",
        ),
        ErrorCase(lambda make: (make.normal(5, 3), make.normal(5, 3)), ValueError, "student of"),
    ),
)


SPECS = (ALIGN,)
