"""Procrustes, whitening and low-rank adapters: torch.linalg.svd beside kdops.batched_svd.

Run: python examples/replace_torch_svd.py. Each problem is solved with both; the values agree, and
the gradients agree wherever torch's is finite. Then the same on the inputs where it is not.
"""

import torch

import kdops


def torch_svd(A, k=None):
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    return U[..., :k], S[..., :k], Vh[..., :k, :]


def procrustes(svd, x, y):
    """The rotation R (b, 3, 3) that brings points x (b, n, 3) closest to y: y ~ x R."""
    U, _, Vh = svd(x.mT @ y)
    sign = torch.det((U @ Vh).detach()).round()
    return torch.cat([U[..., :-1], U[..., -1:] * sign[..., None, None]], -1) @ Vh


def whiten(svd, x, eps=1e-3):
    """ZCA of each batch of features x (b, samples, channels)."""
    centred = x - x.mean(-2, keepdim=True)
    _, S, Vh = svd(centred)
    scale = (S**2 / x.shape[-2] + eps).rsqrt()
    return centred @ (Vh.mT * scale.unsqueeze(-2)) @ Vh


def low_rank(svd, update, k=4):
    """The factors (b, m, k), (b, k, n) of the best rank-k approximation of each update."""
    U, S, Vh = svd(update, k)
    root = S.sqrt()
    return (U * root.unsqueeze(-2)) @ (root.unsqueeze(-1) * Vh)


def gradient(solve, svd, *inputs):
    first = inputs[0].clone().requires_grad_()
    result = solve(svd, first, *inputs[1:])
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).reshape(result.shape)
    return result, torch.autograd.grad((result * weights).sum(), first)[0]


def compare(name, solve, *inputs):
    theirs, their_gradient = gradient(solve, torch_svd, *inputs)
    ours, our_gradient = gradient(solve, kdops.batched_svd, *inputs)
    error = (ours - theirs).abs().max().item()
    finite = their_gradient.isfinite().all(-1).all(-1)
    gap = (our_gradient - their_gradient)[finite].abs()
    print(
        f"{name:<34} value differs by {error:.0e}; finite gradients: torch {finite.sum()} of "
        f"{len(finite)}, kdops {our_gradient.isfinite().all(-1).all(-1).sum()}; where both are, "
        f"they differ by {gap.max().item() if gap.numel() else 0:.0e}"
    )
    return error, our_gradient


def main():
    torch.manual_seed(0)
    points = torch.randn(64, 20, 3, dtype=torch.float64)
    moved = points @ torch.linalg.qr(torch.randn(64, 3, 3, dtype=torch.float64))[0]
    cross = torch.zeros(64, 6, 3, dtype=torch.float64)  # the octahedron: three equal values
    cross[:, :3] = torch.eye(3)
    cross[:, 3:] = -torch.eye(3)
    features = torch.randn(16, 64, 32, dtype=torch.float64)
    dead = features.clone()
    dead[..., :4] = 0  # dead channels: four zero singular values
    update = torch.randn(8, 96, 48, dtype=torch.float64)
    compare("Procrustes", procrustes, points, moved + 0.1 * torch.randn_like(moved))
    compare("Procrustes, symmetric shape", procrustes, cross, cross)
    compare("whitening", whiten, features)
    compare("whitening, dead channels", whiten, dead)
    compare("low-rank adapter", low_rank, update)


if __name__ == "__main__":
    main()
