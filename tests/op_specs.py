"""One OpSpec per public op. Adding a spec here gives an op the whole contract of test_contract.py.

References are written out in plain PyTorch here or in the op's reference.py, never through the
kernels.
"""

from functools import partial

import torch
from gram_loss_specs import GRAM_LOSSES

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
            ErrorCase(
                lambda make: (make.normal(3, 2), None, -make.uniform(1) - 1),
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
    op_calls=(("svd_rbf_loss", lambda make: (*_levels(make, 2, 5, 7, 3), 8.0, 0.5, True)),),
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


# ---- relations: distances and angles written out over differences of rows ------------------------


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


def _relation_loss(name, function, reference):
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


def _pairwise(name, function, reference, op_calls):
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
RELATIONS = (
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
    ),
    _relation_loss("rkd_angle_loss", kdops.rkd_angle_loss, _rkd_angle_reference),
    _relation_loss("rkd_distance_loss", kdops.rkd_distance_loss, _rkd_distance_reference),
    _relation_loss("similarity_loss", kdops.similarity_loss, _similarity_reference),
)


SPECS = (
    ALIGN,
    BATCHED_EIGH,
    *BATCHED_SVDS,
    BATCHED_SVDVALS,
    GRAM,
    *GRAM_LOSSES,
    _fsp("max"),
    _fsp("avg"),
    _rbf_affinity(0.7),
    RBF_AFFINITY_LOSS,
    *RELATIONS,
    SVD_RBF_LOSS,
)
