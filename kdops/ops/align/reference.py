"""The alignment of singular vectors in plain PyTorch, and its gradient, which is linear."""

from __future__ import annotations

import torch
from torch import Tensor

from kdops import _inputs


def align_singular_vectors(student: Tensor, teacher: Tensor) -> Tensor:
    """student (..., D, K'), teacher (..., D, k) -> (..., D, k). METHODS 5.3.

    Column j is the student vector whose |cosine| with teacher vector j is largest (the first of
    equals; not a bijection), with the sign that makes the cosine positive. The choice is constant.
    """
    cosine = _inputs.constant(student).mT @ _inputs.constant(teacher)
    best = cosine.abs().argmax(-2, keepdim=True)
    chosen = student.gather(-1, best.expand(*student.shape[:-1], -1))
    return torch.where(cosine.gather(-2, best) < 0, -chosen, chosen)


def align_backward(grad: Tensor, choice: Tensor, candidates: int) -> Tensor:
    """gstudent (B, D, K') of align_singular_vectors: every column of grad (B, D, k) to its choice.

    choice (B, k): 1 + the index of the student vector, negative if it was turned round.
    """
    batch, length, _ = grad.shape
    index = (choice.abs() - 1).unsqueeze(1).expand(grad.shape)
    turned = torch.where((choice < 0).unsqueeze(1), -grad, grad)
    return grad.new_zeros((batch, length, candidates)).scatter_add(-1, index, turned)
