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


# The contract's checks of kernels, until those of the svd room are in.
_NO_SVD_KERNELS = {
    check: "no compiled svd kernels yet: the reference serves" for check in ("value", "opcheck")
}


def _spectrum(make, *shape):
    """Matrices (*batch, m, n) with well separated singular values 0.6, 1, 1.4, ..."""
    lead = shape if make.batch is None else (make.batch, *shape)
    noise = torch.randn(lead, generator=make.generator, dtype=torch.float64)
    U, S, Vh = torch.linalg.svd(noise, full_matrices=False)
    values = 0.2 + 0.4 * torch.arange(S.shape[-1], 0, -1, dtype=torch.float64)
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


def _svd_reference(A, k=None, compute_u=True):
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    return (U[..., :k] if compute_u else None), S[..., :k], Vh[..., :k, :]


def _svd(name, op_calls, **options):
    return OpSpec(
        name=f"batched_svd[{name}]",
        function=partial(kdops.batched_svd, **options),
        reference=partial(_svd_reference, **options),
        cases=(
            Case("square", lambda make: (_spectrum(make, 3, 9, 9),)),
            Case("tall", lambda make: (_spectrum(make, 5, 40, 6),)),
            Case("wide", lambda make: (_spectrum(make, 2, 7, 33),)),
            Case("leading dims", lambda make: (_spectrum(make, 2, 3, 12, 10),)),
        ),
        small_cases=(
            Case("square", lambda make: (_spectrum(make, 2, 4, 4),)),
            Case("tall", lambda make: (_spectrum(make, 1, 6, 4),)),
            Case("wide", lambda make: (_spectrum(make, 1, 4, 5),)),
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
        skips=_NO_SVD_KERNELS,
    )


def _topk_backward_arguments(make):
    A = make.normal(2, 9, 7)
    U, S, Vh, saved = torch.ops.kdops.svd_topk(A.detach(), 2, True, True, False)
    cotangents = (make.normal(2, 9, 2), make.normal(2, 2), make.normal(2, 2, 7))
    return (*cotangents, A, U, S, Vh, saved, False)


BATCHED_SVDS = (
    _svd("full", (("svd", lambda make: (make.normal(2, 5, 4), True, True, False, False)),)),
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

BATCHED_SVDVALS = OpSpec(
    name="batched_svdvals",
    function=kdops.batched_svdvals,
    reference=torch.linalg.svdvals,
    cases=(
        Case("square", lambda make: (_spectrum(make, 3, 9, 9),)),
        Case("tall", lambda make: (_spectrum(make, 2, 40, 6),)),
        Case("wide", lambda make: (_spectrum(make, 2, 3, 7, 33),)),
    ),
    small_cases=(Case("tall", lambda make: (_spectrum(make, 2, 5, 4),)),),
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
    skips=_NO_SVD_KERNELS,
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
    skips=_NO_SVD_KERNELS,
)


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
    empty_cases=(Case("no batch", lambda make: (make.normal(0, 5, 4), make.normal(0, 5, 2))),),
    errors=(
        ErrorCase(
            lambda make: (make.normal(2, 5, 3), make.normal(2, 4, 3)),
            ValueError,
            "same vector length D, got 5 and 4",
        ),
        ErrorCase(lambda make: (make.normal(5, 3), make.normal(5, 3)), ValueError, "student of"),
    ),
    skips={"value": "one form for all devices, nothing to choose from"},
)

SPECS = (
    ALIGN,
    BATCHED_EIGH,
    *BATCHED_SVDS,
    BATCHED_SVDVALS,
    GRAM,
    _fsp("max"),
    _fsp("avg"),
)
