"""Matrices of two values, each of which many times, and what a projector's gradient is there."""

import torch

from kdops import batched_svd


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
