"""Attention between two levels' vectors, the learned part of MHGD and of IEP's black-box term."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdops.distillers._base import Pair, unit


def row_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Σ over all rows of KL(softmax(p) || softmax(q)) along the last dimension."""
    log_p, log_q = F.log_softmax(p, -1), F.log_softmax(q, -1)
    return (log_p.exp() * (log_p - log_q)).sum()


def _embedding(inputs: int, outputs: int) -> nn.Sequential:
    """Linear and BatchNorm, which makes a bias redundant."""
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs))


class GraphAttention(nn.Module):
    """H attention heads from the front vectors X_F (B, D_F) to the back vectors X_B (B, D_B).

    D' = (D_F + D_B) // 2. logits: S_h = θ_h(X_B) φ_h(X_F)ᵀ, (H, B, B), θ, φ Linear + BatchNorm.
    The estimator V̂_B = l2norm(Linear(concat_h G_h X')), X' = ReLU(BN(Linear X_F)),
    G = softmax(S) rows with randomly dropped heads, exists to train θ and φ on the teacher.
    """

    def __init__(self, front: int, back: int, heads: int, extrinsic: int = 0) -> None:
        super().__init__()
        width = (front + back) // 2
        self.heads, self.width = heads, width
        self.theta = _embedding(back, width * heads)
        self.phi = _embedding(front, width * heads)
        self.value = _embedding(front, width)
        self.output = nn.Linear(width * (heads + extrinsic), back)

    def logits(self, front: Tensor, back: Tensor) -> Tensor:
        """S, (H, B, B): rows are back samples, columns front samples."""
        return self._products(self.theta(back), self.phi(front))

    def _products(self, queries: Tensor, keys: Tensor) -> Tensor:
        queries, keys = (x.view(-1, self.heads, self.width) for x in (queries, keys))
        return torch.einsum("ihd,jhd->hij", queries, keys)

    def divergence(self, front: Pair, back: Pair, tanh: bool = True) -> Tensor:
        """Σ KL(softmax(tanh S_S) || softmax(tanh S_T)) from pairs (student's, teacher's).

        The layers, in inference mode, read both sides at once: what they cost at the batch of an
        iteration is the way of their weights, 12,288 x 2,048 at the last level of a ResNet-50.
        """
        queries = self.theta(torch.cat(back)).tensor_split(2)
        keys = self.phi(torch.cat(front)).tensor_split(2)
        s_s, s_t = (self._products(q, k) for q, k in zip(queries, keys, strict=True))
        if tanh:
            s_s, s_t = s_s.tanh(), s_t.tanh()
        return row_divergence(s_s, s_t.detach())

    def estimate(self, front: Tensor, logits: Tensor, extrinsic: Tensor | None = None) -> Tensor:
        """V̂_B, (B, D_B); extrinsic: another graph (1, B, B), used as it is."""
        graph = torch.softmax(logits, -1)
        if extrinsic is not None:
            graph = torch.cat([graph, extrinsic])
        noise = torch.randn(graph.shape[0], graph.shape[1], 1, device=graph.device)
        graph = graph * (noise > noise.mean(0, keepdim=True))
        mixed = torch.matmul(graph, torch.relu(self.value(front)))
        return unit(self.output(mixed.transpose(0, 1).flatten(1)), 1)

    def teacher_loss(
        self, front: Tensor, back: Tensor, decay: float, extrinsic: Tensor | None = None
    ) -> Tensor:
        """mean_b (1 - <V̂_B, V_B>) + decay · Σ w², V_B the back vectors at unit length."""
        guess = self.estimate(front, self.logits(front, back), extrinsic)
        linear = [m.weight for m in self.modules() if isinstance(m, nn.Linear)]
        penalty = torch.stack([w.square().sum() for w in linear]).sum()
        return (1 - (guess * unit(back, 1)).sum(1)).mean() + decay * penalty
