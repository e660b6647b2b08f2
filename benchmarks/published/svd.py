"""Singular vectors as the published implementations and plain PyTorch compute them."""

import torch


def full(A):
    """torch.linalg.svd and its autograd."""
    return torch.linalg.svd(A, full_matrices=False)


def top_by_svd(k):
    """What KD-SVD codes run: the whole SVD, of which k values and right vectors are used."""

    def decompose(A):
        _, S, Vh = torch.linalg.svd(A, full_matrices=False)
        return S[..., :k], Vh[..., :k, :]

    return decompose


def top_by_gram(k):
    """The best plain form: eigh of the Gram matrix on the small side."""

    def decompose(A):
        m, n = A.shape[-2:]
        gram = A.mT @ A if n <= m else A @ A.mT
        values, vectors = torch.linalg.eigh(gram)
        S = values[..., -k:].flip(-1).clamp_min(0).sqrt()
        top = vectors[..., -k:].flip(-1)
        if n <= m:
            return S, top.mT
        return S, (top.mT @ A) / S.unsqueeze(-1)

    return decompose


def top_by_lowrank(k):
    """torch's randomised SVD with its own number of iterations, two vectors more than wanted."""

    def decompose(A):
        _, S, V = torch.svd_lowrank(A, q=min(k + 2, *A.shape[-2:]))
        return S[..., :k], V[..., :k].mT

    return decompose


def top_by_lobpcg(k):
    """torch's iterative eigensolver on the Gram matrix of the small side."""

    def decompose(A):
        tall = A.shape[-1] <= A.shape[-2]
        values, vectors = torch.lobpcg(A.mT @ A if tall else A @ A.mT, k=k)
        S = values.clamp_min(0).sqrt()
        return (S, vectors.mT) if tall else (S, (vectors.mT @ A) / S.unsqueeze(-1))

    return decompose


def full_by_gram(A):
    """The whole decomposition by eigh of the Gram matrix on the small side; S is not accurate."""
    if A.shape[-2] < A.shape[-1]:
        U, S, Vh = full_by_gram(A.mT)
        return Vh.mT, S, U.mT
    values, vectors = torch.linalg.eigh(A.mT @ A)
    S, V = values.flip(-1).clamp_min(0).sqrt(), vectors.flip(-1)
    return (A @ V) / S.unsqueeze(-2), S, V.mT


def values_by_gram(A):
    """Singular values by eigvalsh of the Gram matrix on the small side."""
    gram = A.mT @ A if A.shape[-1] <= A.shape[-2] else A @ A.mT
    return torch.linalg.eigvalsh(gram).flip(-1).clamp_min(0).sqrt()


def polar(A):
    """A = P H by the formula, with torch's autograd."""
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    return U @ Vh, (Vh.mT * S.unsqueeze(-2)) @ Vh


def polar_by_gram(A):
    """The same through the square root of A^T A, m >= n; inexact if A is nearly singular."""
    values, V = torch.linalg.eigh(A.mT @ A)
    S = values.clamp_min(0).sqrt().unsqueeze(-2)
    return A @ ((V / S) @ V.mT), (V * S) @ V.mT


def nuclear_norm(A):
    return torch.linalg.matrix_norm(A, ord="nuc")


def projectors(result):
    """S and v (v·p) of every right vector v for two fixed probes p: what no sign changes."""
    S, Vh = result[-2:]
    probes = torch.randn(Vh.shape[-1], 2, generator=torch.Generator().manual_seed(5))
    return S, Vh.unsqueeze(-1) * (Vh @ probes.to(Vh)).unsqueeze(-2)
