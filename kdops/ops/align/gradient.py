"""The gradient of the alignment, as a pure function of tensors: it is linear."""

from __future__ import annotations

import torch
from torch import Tensor


def align_backward(grad: Tensor, choice: Tensor, candidates: int) -> Tensor:
    """gstudent (B, D, K') of align_singular_vectors: every column of grad (B, D, k) to its choice.

    choice (B, k): 1 + the index of the student vector, negative if it was turned round.
    """
    batch, length, _ = grad.shape
    index = (choice.abs() - 1).unsqueeze(1).expand(grad.shape)
    turned = torch.where((choice < 0).unsqueeze(1), -grad, grad)
    return grad.new_zeros((batch, length, candidates)).scatter_add(-1, index, turned)
