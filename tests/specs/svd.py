"""Specs of the decompositions, compared through what does not depend on the choice of signs."""

from functools import partial

import torch

import kdops
from kdops.testing import Case, ErrorCase, OpSpec


def spectrum(make, *shape):
    """Matrices (*batch, m, n) with well separated singular values 0.6, 1, 1.4, ..."""
    lead = shape if make.batch is None else (make.batch, *shape)
    noise = torch.randn(lead, generator=make.generator, dtype=torch.float64)
    U, S, Vh = torch.linalg.svd(noise, full_matrices=False)
    values = 0.2 + 0.4 * torch.arange(S.shape[-1], 0, -1, dtype=torch.float64)
    return make.of(U * values @ Vh)


_SPLIT_KINDS = ("nearly diagonal", "bidiagonal", "block diagonal", "orthogonal columns plus noise")


def _nearly_split(make, kind, *shape):
    """Matrices (*batch, m, n) with about the values ..., 1, 0.6 that only tiny couplings join."""
    lead = shape if make.batch is None else (make.batch, *shape)
    noise = torch.randn(lead, generator=make.generator, dtype=torch.float64)
    A, coupling = torch.zeros_like(noise), 1e-14
    diagonal = A.diagonal(dim1=-2, dim2=-1)
    diagonal.copy_(0.2 + 0.4 * torch.arange(diagonal.shape[-1], 0, -1, dtype=torch.float64))
    match kind:
        case "nearly diagonal":
            A = A + coupling * noise
        case "bidiagonal":
            A = A + coupling * torch.eye(*shape[-2:], dtype=torch.float64).roll(1, -1)
        case "block diagonal":
            blocks = torch.arange(shape[-2]) // 4
            inside = blocks[:, None] == blocks
            A = torch.linalg.qr(noise @ noise.mT * inside)[0] @ A + coupling * noise
        case "orthogonal columns plus noise":
            A = torch.linalg.qr(noise @ noise.mT)[0] @ A + coupling * noise
    return make.of(A)


def _decaying(make, *shape):
    """Matrices (*batch, m, n) with a few values above a flat tail, like feature maps."""
    lead = shape if make.batch is None else (make.batch, *shape)
    noise = torch.randn(lead, generator=make.generator, dtype=torch.float64)
    U, S, Vh = torch.linalg.svd(noise, full_matrices=False)
    r = S.shape[-1]
    values = 4 * 0.7 ** torch.arange(r) + torch.linspace(0.3, 0.1, r, dtype=torch.float64)
    return make.of(U * values @ Vh)


def _symmetric(make, *shape):
    """Symmetric matrices with eigenvalues ..., -0.4, 0, 0.4, ..."""
    lead = shape if make.batch is None else (make.batch, *shape)
    noise = torch.randn(lead, generator=make.generator, dtype=torch.float64)
    Q, _ = torch.linalg.qr(noise)
    values = 0.4 * (torch.arange(Q.shape[-1], dtype=torch.float64) - Q.shape[-1] // 2)
    return make.of(Q * values @ Q.mT)


def _weighted_projector(vectors):
    """Columns v_i -> sum of v_i v_i^T / (1 + i): the same for any sign of the columns."""
    weights = 1 / torch.arange(1, 1 + vectors.shape[-1]).to(vectors)
    return (vectors * weights) @ vectors.mT


def _svd_invariant(result):
    U, S, Vh = result
    if U is None:
        return S, _weighted_projector(Vh.mT)
    return S, _weighted_projector(Vh.mT), _weighted_projector(U), U @ Vh


def svd_reference(A, k=None, compute_u=True):
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    return (U[..., :k] if compute_u else None), S[..., :k], Vh[..., :k, :]


def _svd(name, op_calls, **options):
    return OpSpec(
        name=f"batched_svd[{name}]",
        function=partial(kdops.batched_svd, **options),
        reference=partial(svd_reference, **options),
        cases=(
            Case("square", lambda make: (spectrum(make, 3, 9, 9),)),
            Case("tall", lambda make: (spectrum(make, 5, 40, 6),)),
            Case("wide", lambda make: (spectrum(make, 2, 7, 33),)),
            Case("leading dims", lambda make: (spectrum(make, 2, 3, 12, 10),)),
            *(
                Case(kind, lambda make, kind=kind: (_nearly_split(make, kind, 2, 12, 9),))
                for kind in _SPLIT_KINDS
            ),
        ),
        small_cases=(
            Case("square", lambda make: (spectrum(make, 2, 4, 4),)),
            Case("tall", lambda make: (spectrum(make, 1, 6, 4),)),
            Case("wide", lambda make: (spectrum(make, 1, 4, 5),)),
        ),
        op_calls=op_calls,
        empty_cases=(Case("no matrices", lambda make: (make.normal(0, 6, 5),)),),
        errors=(
            ErrorCase(
                lambda make: (make.normal(4),),
                ValueError,
                r"batched_svd: expected A of shape \[..., m, n\], got \[4\] \(1-D\)",
            ),
            ErrorCase(lambda make: (torch.ones(2, 3, 4).int(),), TypeError, "got int32"),
        ),
        invariant=_svd_invariant,
    )


def _full_backward_arguments(make):
    triples = torch.linalg.svd(make.normal(2, 5, 4).detach(), full_matrices=False)
    cotangents = (make.normal(2, 5, 4), make.normal(2, 4), make.normal(2, 4, 4))
    return (
        *cotangents,
        *(t.contiguous().requires_grad_(make.requires_grad) for t in triples),
        False,
    )


def _topk_backward_arguments(make):
    A = make.normal(2, 9, 7)
    U, S, Vh, saved = torch.ops.kdops.svd_topk(A.detach(), 2, True, True, False)
    cotangents = (make.normal(2, 9, 2), make.normal(2, 2), make.normal(2, 2, 7))
    return (*cotangents, A, U, S, Vh, saved, False)


BATCHED_SVDS = (
    _svd(
        "full",
        (
            ("svd", lambda make: (make.normal(2, 5, 4), True, True, False, False)),
            ("svd_backward", _full_backward_arguments),
        ),
    ),
    _svd(
        "S and V",
        (("svd", lambda make: (make.normal(5, 4), False, False, True, True)),),
        compute_u=False,
    ),
    _svd(
        "top 2",
        (
            ("svd_topk", lambda make: (make.normal(2, 9, 7), 2, True, True, False)),
            ("svd_topk_backward", _topk_backward_arguments),
        ),
        k=2,
    ),
    _svd(
        "top 1, S and V",
        (("svd_topk", lambda make: (make.normal(3, 4), 1, False, True, True)),),
        k=1,
        compute_u=False,
    ),
)


def _large_topk_backward_arguments(make):
    A = make.normal(1, 131, 129)
    U, S, Vh, saved = torch.ops.kdops.svd_topk(A.detach(), 2, True, True, False)
    cotangents = (make.normal(1, 131, 2), make.normal(1, 2), make.normal(1, 2, 129))
    return (*cotangents, A, U, S, Vh, saved, False)


_TOO_MANY_ENTRIES = "too many entries for a Jacobian: tests/ops/test_svd_large_gradient.py"

ABOVE_128 = OpSpec(
    name="batched_svd[top 3 above 128]",
    function=partial(kdops.batched_svd, k=3),
    reference=partial(svd_reference, k=3),
    cases=(
        Case("square", lambda make: (_decaying(make, 2, 129, 129),)),
        Case("tall", lambda make: (_decaying(make, 1, 160, 130),)),
        Case("wide", lambda make: (_decaying(make, 1, 196, 256),)),
    ),
    small_cases=(Case("square", lambda make: (_decaying(make, 1, 129, 130),)),),
    op_calls=(
        ("svd_topk", lambda make: (make.normal(1, 131, 129), 2, True, True, False)),
        ("svd_topk_backward", _large_topk_backward_arguments),
    ),
    empty_cases=(Case("no matrices", lambda make: (make.normal(0, 140, 150),)),),
    errors=(ErrorCase(lambda make: (make.normal(140, 2),), ValueError, r"min\(m, n\) = 2, got k"),),
    invariant=_svd_invariant,
    skips={"gradcheck": _TOO_MANY_ENTRIES, "gradgradcheck": _TOO_MANY_ENTRIES},
)

BATCHED_SVDVALS = OpSpec(
    name="batched_svdvals",
    function=kdops.batched_svdvals,
    reference=torch.linalg.svdvals,
    cases=(
        Case("square", lambda make: (spectrum(make, 3, 9, 9),)),
        Case("tall", lambda make: (spectrum(make, 2, 40, 6),)),
        Case("wide", lambda make: (spectrum(make, 2, 3, 7, 33),)),
    ),
    small_cases=(Case("tall", lambda make: (spectrum(make, 2, 5, 4),)),),
    op_calls=(("svdvals", lambda make: (make.normal(2, 5, 4),)),),
    empty_cases=(
        Case("no matrices", lambda make: (make.normal(0, 6, 5),)),
        Case("no columns", lambda make: (make.normal(2, 6, 0),)),
    ),
    errors=(
        ErrorCase(lambda make: (make.normal(4),), ValueError, "batched_svdvals: expected A of"),
        ErrorCase(lambda make: (make.normal(2, 4, 4), 5), ValueError, "got k = 5"),
        ErrorCase(lambda make: (make.normal(2, 4, 4), 1.0), TypeError, "k to be an int"),
    ),
)


def _eigh_of_symmetric_part(eigh):
    """Of the symmetric part: a numerical Jacobian moves the entries of A one by one."""
    return lambda A: eigh((A + A.mT) / 2)


BATCHED_EIGH = OpSpec(
    name="batched_eigh",
    function=_eigh_of_symmetric_part(kdops.batched_eigh),
    reference=_eigh_of_symmetric_part(torch.linalg.eigh),
    cases=(
        Case("one", lambda make: (_symmetric(make, 3, 9, 9),)),
        Case("leading dims", lambda make: (_symmetric(make, 2, 2, 14, 14),)),
    ),
    small_cases=(Case("one", lambda make: (_symmetric(make, 2, 4, 4),)),),
    op_calls=(("eigh", lambda make: (make.normal(2, 4, 4),)),),
    empty_cases=(
        Case("no matrices", lambda make: (make.normal(0, 5, 5),)),
        Case("no rows", lambda make: (make.normal(2, 0, 0),)),
    ),
    errors=(
        ErrorCase(lambda make: (make.normal(4, 4).to(torch.cfloat),), TypeError, "got complex64"),
    ),
    invariant=lambda result: (result[0], _weighted_projector(result[1])),
)


SPECS = (ABOVE_128, BATCHED_EIGH, *BATCHED_SVDS, BATCHED_SVDVALS)
