"""Matrices of two values, each of which many times, or of most values far below the largest, and
what the gradient of a projector is there."""

import torch
from support.svd_inputs import with_values

from kdops import batched_svd

# Values in units of tau, of error_of_far_vector: clear of the rest by far, by two or three tau, by
# one and a half, and not at all.
LAST_AND_REST = [(30, 3), (30, 27), (3, 0.3), (6, 4.5), (6, 0.3), (3, 1.5), (2, 0.3), (3, 2.6)]


def orthonormal(count, m, n, g):
    return torch.linalg.qr(torch.randn(count, m, n, generator=g, dtype=torch.float64))[0]


def two_values(count, m, n, equal, g):
    """count matrices with `equal` values 1 and n - equal of 1/2, and their right vectors."""
    values = torch.where(torch.arange(n) < equal, 1.0, 0.5).double()
    V = orthonormal(count, n, n, g)
    return (orthonormal(count, m, n, g) * values) @ V.mT, V


def symmetric(count, n, g):
    W = torch.randn(count, n, n, generator=g, dtype=torch.float64)
    return W + W.mT


def turn_of_projector(V, W, equal, gap):
    """d<W, P>/dG of the projector P on the first `equal` eigenvectors V of G, whose other value is
    `gap` below theirs: only pairs of one inside and one outside turn."""
    inside = torch.arange(V.shape[-1]) < equal
    pairs = inside.unsqueeze(-1) != inside
    return V @ ((V.mT @ W @ V) * pairs / gap) @ V.mT


def error_of_projector(shape, count, equal, k, dtype, device="cpu", wide=False):
    """The worst error of its gradient, where `equal` of the values are equal, in eps of its weight;
    wide: of the left vectors of the matrices turned."""
    g = torch.Generator().manual_seed(0)
    A, V = two_values(count, *shape, equal, g)
    W = symmetric(count, shape[1], g)
    X = (A.mT if wide else A).to(device, dtype).requires_grad_()
    U, _, Vh = batched_svd(X, k)
    of_cluster = (U if wide else Vh.mT)[..., :equal]
    (W.to(X) * (of_cluster @ of_cluster.mT)).sum().backward()
    expected = 2 * A @ turn_of_projector(V, W, equal, gap=0.75)  # of A^T A
    return worst(X.grad, expected.mT if wide else expected, W) / torch.finfo(dtype).eps


def worst(actual, expected, W):
    norm = torch.linalg.matrix_norm
    return (norm(actual.cpu().double() - expected) / norm(W)).max()


def error_of_far_vector(shape, last, rest, dtype, device="cpu", policy="mask", wide=False):
    """Of the gradient of <W, v v^T>, v the last of k = 4 vectors, relative to the gradient that has
    every pair in full. Of r singular values the first are 1, .9 and .8, the next is `last` tau, and
    all others lie just below `rest` tau; tau: below which values count as equal."""
    g, r = torch.Generator().manual_seed(0), min(shape)
    tau = 8 * r**0.5 * torch.finfo(dtype).eps
    near, far = torch.tensor([1, 0.9, 0.8]), torch.linspace(rest, 0.9 * rest, r - 4)
    values = torch.cat([near, tau * torch.tensor([last]), tau * far])
    X = with_values(values, *shape, g).to(device, dtype)
    X = (X.mT.contiguous() if wide else X).requires_grad_()
    W = symmetric(1, r, g)[0]
    U, _, Vh = batched_svd(X, 4, degenerate=policy)
    v = U[:, 3] if wide else Vh[3]
    (v @ W.to(X) @ v).backward()
    A, found = (M.mT if wide else M for M in (X.detach(), X.grad))
    A, found = A.cpu().double(), found.cpu().double()
    S, Vh = torch.linalg.svd(A, full_matrices=False)[1:]
    away, threshold = torch.stack([S[3] - S, S[3] + S]), tau * S[0]
    plain = 1 / away.prod(0)
    policies = {
        "mask": torch.where(away.abs() <= threshold, 0, 1 / away).prod(0),
        "lorentz": (away / (away**2 + threshold**2)).prod(0),
    }

    def gradient(turn):  # turn: of v's value and each
        row = (torch.arange(r) == 3).double()[:, None] * torch.where(torch.arange(r) == 3, 0, turn)
        return 2 * A @ Vh.mT @ ((Vh @ W @ Vh.mT) * (row + row.mT)) @ Vh

    norm = torch.linalg.matrix_norm
    return (norm(found - gradient(policies[policy])) / norm(gradient(plain))).item()
