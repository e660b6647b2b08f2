"""Matrices that break SVD codes, and the measures by which the tests judge a decomposition."""

import torch

import kdops


def with_values(values, m, n, generator):
    """A random m x n matrix with the given singular values (float64)."""
    r = min(m, n)
    U = torch.linalg.qr(torch.randn(m, r, generator=generator, dtype=torch.float64))[0]
    V = torch.linalg.qr(torch.randn(n, r, generator=generator, dtype=torch.float64))[0]
    return U * torch.as_tensor(values, dtype=torch.float64) @ V.mT


def difficult(dtype, m, n, seed=0):
    """{name: (m, n)}: from random to zero, in and near the range of dtype."""
    g = torch.Generator().manual_seed(seed)
    r = min(m, n)
    single = dtype == torch.float32
    worst = 1e6 if single else 1e14  # condition number
    edge = 1e25 if single else 1e150  # scale
    x = torch.randn(m, n, generator=g, dtype=torch.float64)
    graded = torch.logspace(0, -6 if single else -12, n, dtype=torch.float64)
    decay = torch.logspace(0, -torch.log10(torch.tensor(worst)).item(), r, dtype=torch.float64)
    repeated = torch.tensor([3.0, 3.0, 2.0, 2.0, 1.0])[torch.arange(r) * 5 // r]
    dead = x.clone()
    dead[:, : max(1, n // 8)] = 0
    duplicate = x.clone()
    duplicate[:, -1] = duplicate[:, 0]
    rank_1 = torch.outer(x[:, 0], x[0])
    rank_half = with_values((torch.arange(r) < (r + 1) // 2).double(), m, n, g)
    matrices = {
        "random": x,
        "random offset": x + 3,
        "ill-conditioned": with_values(decay, m, n, g),
        "one small value": with_values((torch.arange(r) < r - 1) + 1 / worst, m, n, g),
        "graded columns": x * graded,
        "graded rows": x * torch.linspace(0, -6, m, dtype=torch.float64)[:, None].exp(),
        "repeated values": with_values(repeated, m, n, g),
        "orthonormal": with_values(torch.ones(r), m, n, g),
        "rank 1": rank_1,
        "rank r/2": rank_half,
        "dead channels": dead,
        "duplicate channels": duplicate,
        "identity": torch.eye(m, n, dtype=torch.float64),
        "zero": torch.zeros(m, n, dtype=torch.float64),
        "ones": torch.ones(m, n, dtype=torch.float64),
        "one entry": torch.eye(m, n, dtype=torch.float64) * (torch.arange(n) == 0),
        "huge": x * edge,
        "tiny": x / edge,
    }
    return {name: matrix.to(dtype) for name, matrix in matrices.items()}


def two_clusters(dtype, m, n, small, copies=1):
    """{name: (m, n)}: `small` singular values equal and smaller, the others 1; squared conditions
    on both sides of what a Gram matrix bears."""
    p = min(m, n)
    g, ones = torch.Generator().manual_seed(2), torch.arange(p) < p - small
    conditions = [8, 20, 28, 30, 33, 40, 64, 100, 2 * p, 3.9 * p, 8 * p, 15 * p, 1e4]
    values = {c: torch.where(ones, 1.0, c**-0.5).double() for c in conditions}
    return {
        f"{c}, {i}": with_values(v, m, n, g).to(dtype)
        for c, v in values.items()
        for i in range(copies)
    }


def stacked(matrices):
    return torch.stack(list(matrices.values()))


def orthonormality(Q):
    """‖QᵀQ - I‖_F of each matrix of columns."""
    Q = Q.double()
    return torch.linalg.matrix_norm(Q.mT @ Q - torch.eye(Q.shape[-1], dtype=torch.float64))


def gate(dtype, m, n):
    """The bound of mode="accurate" on every measure: 20 n eps."""
    return 20 * min(m, n) * torch.finfo(dtype).eps


def errors_of_full(A, U, S, Vh):
    """{measure: error of each matrix}, each to be held against `gate`."""
    A, U, S, Vh = A.double(), U.double(), S.double(), Vh.double()
    scale = A.abs().amax((-2, -1), keepdim=True).clamp_min(1e-300)
    A, S = A / scale, S / scale[..., 0]
    exact = torch.linalg.svdvals(A)
    largest = exact[..., :1].clamp_min(1e-300)
    norm = torch.linalg.matrix_norm(A).clamp_min(1e-300)
    return {
        "A - U S Vh": torch.linalg.matrix_norm(A - U * S.unsqueeze(-2) @ Vh) / norm,
        "U orthonormal": orthonormality(U),
        "V orthonormal": orthonormality(Vh.mT),
        "S": ((S - exact).abs() / largest).amax(-1),
        "S descending": (S[..., 1:] - S[..., :-1]).clamp_min(0).sum(-1),
        "S negative": (-S).clamp_min(0).sum(-1),
    }


def errors_of_topk(A, U, S, Vh):
    """The same for the k largest triples; A v = s u and Aᵀu = s v instead of the product."""
    A, U, S, Vh = A.double(), U.double(), S.double(), Vh.double()
    scale = A.abs().amax((-2, -1), keepdim=True).clamp_min(1e-300)
    A, S = A / scale, S / scale[..., 0]
    exact = torch.linalg.svdvals(A)[..., : S.shape[-1]]
    largest = exact[..., :1].clamp_min(1e-300)
    s = S.unsqueeze(-2)
    return {
        "A v - s u": (torch.linalg.vector_norm(A @ Vh.mT - U * s, dim=-2) / largest).amax(-1),
        "Aᵀu - s v": (torch.linalg.vector_norm(A.mT @ U - Vh.mT * s, dim=-2) / largest).amax(-1),
        "U orthonormal": orthonormality(U),
        "V orthonormal": orthonormality(Vh.mT),
        "S": ((S - exact).abs() / largest).amax(-1),
        "S descending": (S[..., 1:] - S[..., :-1]).clamp_min(0).sum(-1),
    }


def gauge_invariant_loss(shape, k):
    """(U, S, Vh, parts) -> loss of each of the first k triples by itself, through `parts`."""
    m, n = shape
    g = torch.Generator().manual_seed(5)
    of_u, of_v, of_both = (
        torch.randn(size, generator=g, dtype=torch.float64) for size in ((m, m), (n, n), (m, n))
    )
    root = torch.arange(1, k + 1) ** 0.5

    def loss(U, S, Vh, parts):
        on_u, on_v, mixed, weights = (t.to(S) for t in (of_u, of_v, of_both, root))
        V = Vh[..., :k, :].mT
        total = S.new_zeros(())
        if "S" in parts:
            total = total + (weights * S[..., :k] ** 2).sum()
        if "V" in parts:
            total = total + (weights * (V * (on_v @ V)).sum(-2)).sum()
        if "U" in parts:
            total = total + (weights * (U[..., :k] * (on_u @ U[..., :k])).sum(-2)).sum()
        if parts == "USV":
            total = total + (weights * (U[..., :k] * (mixed @ V)).sum(-2)).sum()
        return total

    return loss


def gradients_of(decompose, A, loss, parts):
    """The gradients of the loss through each of `parts`, from one decomposition."""
    A = A.clone().requires_grad_()
    result = decompose(A)
    return [torch.autograd.grad(loss(*result, p), A, retain_graph=True)[0] for p in parts]


def relative(actual, expected):
    norms = torch.linalg.matrix_norm(actual - expected) / torch.linalg.matrix_norm(expected)
    return norms.max().item()


def failures(names, errors, limit):
    """The sentences for an assertion message: which matrix fails which measure by how much."""
    return [
        f"{name}: {measure} {value:.2g} > {limit:.2g}"
        for measure, values in errors.items()
        for name, value in zip(names, values.tolist(), strict=True)
        if not value <= (0 if measure in ("S descending", "S negative") else limit)
    ]


NEARLY_SPLIT = ["nearly diagonal", "upper bidiagonal", "lower bidiagonal", "planted zeros"]
NEARLY_SPLIT += ["block diagonal", "orthogonal columns plus noise"]


def nearly_split(kind, values, coupling, m, n, generator):
    """m x n with about the given singular values (descending), which fall apart but for couplings.

    float64; a coupling so small that it is zero in another type gives an exactly split matrix.
    """
    r = min(m, n)
    noise = torch.randn(m, n, generator=generator, dtype=torch.float64)
    A = torch.zeros(m, n, dtype=torch.float64)
    A[:r, :r] = torch.diag(torch.as_tensor(values, dtype=torch.float64))
    match kind:
        case "nearly diagonal":
            return A + coupling * noise
        case "upper bidiagonal":
            return A + coupling * torch.diag(torch.ones(max(m, n) - 1), 1)[:m, :n]
        case "lower bidiagonal":
            return A + coupling * torch.diag(torch.ones(max(m, n) - 1), -1)[:m, :n]
        case "planted zeros":
            return A + coupling * noise * (noise > 0.5)
        case "block diagonal":
            for begin in range(0, r, 4):
                block = A[begin : min(begin + 4, r), begin : min(begin + 4, r)]
                turn = torch.linalg.qr(torch.randn(*block.shape, generator=generator).double())[0]
                block.copy_(turn @ block @ turn.roll(1, 0).mT)
            return A + coupling * noise
        case "orthogonal columns plus noise":
            basis = torch.linalg.qr(torch.randn(m, m, generator=generator).double())[0]
            return basis @ A + coupling * noise
    raise ValueError(kind)


def top_of_small_matrices(shape, device, k=4):
    """Asserts what the gradient of the top k is down to the denormal float32 matrices: that of
    float64 as long as s_1 counts; below, zero for the vectors and no other for the values."""
    g = torch.Generator().manual_seed(1)
    X = torch.randn(3, *shape, generator=g, dtype=torch.float64)
    sizes = {"U": (shape[0], k), "S": (k,), "Vh": (k, shape[1])}
    cotangents = {
        name: torch.randn(3, *size, generator=g, dtype=torch.float64)
        for name, size in sizes.items()
    }

    def gradient(A, names, dtype, compute_u=True):
        A = A.to(device, dtype).requires_grad_()
        triples = kdops.batched_svd(A, k, compute_u=compute_u)
        outputs = [getattr(triples, name) for name in names]
        given = [cotangents[name].to(device, dtype) for name in names]
        return torch.autograd.grad(outputs, A, given)[0].cpu()

    for exponent in (-90, -98, -110, -115, -119, -122, -125, -130, -140):
        A = (X * 2.0**exponent).float().double()
        for names in (["U"], ["Vh"], ["U", "Vh"]):
            found = gradient(A, names, torch.float32)
            if exponent < -103:  # s_1 < 1e-31 = 2^-103
                assert not found.any(), (exponent, names)
                continue
            exact = gradient(A * 2.0**90, names, torch.float64)
            assert relative(found.double() * 2.0**-90, exact) < 1e-3, (exponent, names)
        if exponent > -125:
            exact = gradient(A * 2.0**90, ["S"], torch.float64)
            for compute_u in (True, False):
                found = gradient(A, ["S"], torch.float32, compute_u)
                assert relative(found.double(), exact) < 1e-3, (exponent, compute_u)
