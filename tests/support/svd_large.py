"""Matrices with a small side above 128, the routes of their top-k SVD, and torch's own."""

import torch
from support.svd_inputs import with_values

from kdops import batched_svd

DTYPES = [torch.float32, torch.float64]
GRAM, DENSE, KRYLOV = 1.0, 2.0, 4.0
# The tridiagonal form below 224, Krylov from there on; widths of whole registers and none.
SHAPES = [(129, 129), (300, 144), (133, 400), (240, 226), (226, 300)]


def spectrum(values, shape, seed=0):
    return with_values(values, *shape, torch.Generator().manual_seed(seed))


def decaying(r):
    """A dominating value, some more, then a long flat tail: what feature maps have."""
    head = torch.tensor([8.0, 4.0, 3.0, 2.5, 2.0, 1.7, 1.4, 1.2, 1.05], dtype=torch.float64)
    return torch.cat([head, torch.linspace(0.7, 0.1, r - len(head), dtype=torch.float64)])


def maps(batch, shape):
    return torch.stack([spectrum(decaying(min(shape)), shape, seed) for seed in range(batch)])


def route(A, k):
    return torch.ops.kdops.svd_topk(A, k, True, True, False)[3].flatten(1)[:, 0].tolist()


def torch_topk(k):
    def decompose(A):
        U, S, Vh = torch.linalg.svd(A, full_matrices=False)
        return U[..., :k], S[..., :k], Vh[..., :k, :]

    return decompose


def with_gradient(A, k, cotangents, **options):
    A = A.detach().requires_grad_()
    outputs = [t for t in batched_svd(A, k, **options) if t is not None]
    (gA,) = torch.autograd.grad(outputs, A, cotangents[-len(outputs) :])
    return (*(t.detach() for t in outputs), gA)


def cotangents_for(A, k):
    *batch, m, n = A.shape
    g = torch.Generator().manual_seed(3)
    sizes = (m, k), (k,), (k, n)
    return [torch.randn(*batch, *size, generator=g, dtype=torch.float64).to(A) for size in sizes]


PARTS = ["USV", "SV", "V", "S", "U"]
