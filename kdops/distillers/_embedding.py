"""The learned and the accumulated parts of IEP: plane mapping, incremental PCA, message passing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kdops.distillers._base import unit
from kdops.ops.svd import batched_svd


def plane_map(x: Tensor) -> Tensor:
    """Stereographic map of unit vectors (B, D): X' = 2 (X + c) / (1 + X·c) - 2 c, c = 1/√D · 1.

    Seen from -c onto the plane that touches the sphere at c: ‖X'‖ = 2 tan(θ/2), X'·c = 0. The
    antipode -c has no image; the divisor stops at 1e-3, where the true slope is as large.
    """
    c = 1.0 / math.sqrt(x.shape[1])
    divisor = (1 + c * x.sum(1, keepdim=True)).clamp_min(1e-3)
    return 2 * (x + c) / divisor - 2 * c


def code_size(size: int) -> int:
    """Components kept of a level with that many channels."""
    return max(size // 2, 1)


class IncrementalPCA(nn.Module):
    """The D // 2 principal directions of all batches seen so far, with a moving mean.

    update: right singular vectors, canonical in sign, of the rows [X - mean_B; (S Vᵀ); M - mean_B];
    then M <- 0.1 M + 0.9 mean_B. forward: P = (X - M) V, with no gradient for M and V.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor
    seen: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.kept = code_size(size)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.zeros(self.kept))
        self.register_buffer("basis", torch.zeros(size, self.kept))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """One batch (B, D)."""
        mean = x.mean(0)
        old = torch.where(self.seen, self.mean, mean)
        rows = torch.cat([x - mean, (self.scale * self.basis).T, (old - mean)[None]])
        _, s, vh = batched_svd(rows[None], self.kept, compute_u=False)
        self.basis.copy_(vh[0].T)
        self.scale.copy_(s[0])
        self.mean.copy_(0.1 * old + 0.9 * mean)
        self.seen.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D // 2)"""
        return torch.matmul(x - self.mean, self.basis)


class MessagePassing(nn.Module):
    """Edges of the front level's codes, refined by messages of the back level's.

    Codes P_F (B, D_F / 2), P_B (B, d). h_ij = P_B,i - P_B,j; e_ij = d · x_i o x_j,
    x = l2norm(BN(Linear P_F)); twice, with shared weights: m = BN(Linear [h, mean_d e]) ·
    sigmoid(BN(Linear [h, mean_d e])), e <- e + m. Result: Ã = mean_d e (B, B), and the messages of
    both iterations (B, B, 2 d).
    """

    def __init__(self, front: int, back: int, iterations: int = 2) -> None:
        super().__init__()
        self.iterations = iterations
        self.edge = nn.Sequential(nn.Linear(front, back), nn.BatchNorm1d(back))
        self.message = nn.Linear(back + 1, back)
        self.gate = nn.Linear(back + 1, back)
        self.message_norm, self.gate_norm = nn.BatchNorm1d(back), nn.BatchNorm1d(back)

    def forward(self, front: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
        batch, d = back.shape
        x = unit(self.edge(front), 1)
        edges = (d * x[:, None] * x[None, :]).view(batch * batch, d)
        h = (back[:, None] - back[None, :]).view(batch * batch, d)
        messages = []
        for _ in range(self.iterations):
            inputs = torch.cat([h, edges.mean(1, keepdim=True)], 1)
            gate = torch.sigmoid(self.gate_norm(self.gate(inputs)))
            messages.append(self.message_norm(self.message(inputs)) * gate)
            edges = edges + messages[-1]
        graph = edges.mean(1).view(batch, batch)
        return graph, torch.cat(messages, 1).view(batch, batch, d * len(messages))
