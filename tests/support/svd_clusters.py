"""Matrices of two values, each of which many times, and what a projector's gradient is there."""

import torch


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


def worst(actual, expected, W):
    norm = torch.linalg.matrix_norm
    return (norm(actual.cpu().double() - expected) / norm(W)).max()
