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


def projectors(result):
    """S and v (v·p) of every right vector v for two fixed probes p: what no sign changes."""
    S, Vh = result[-2:]
    probes = torch.randn(Vh.shape[-1], 2, generator=torch.Generator().manual_seed(5))
    return S, Vh.unsqueeze(-1) * (Vh @ probes.to(Vh)).unsqueeze(-2)
