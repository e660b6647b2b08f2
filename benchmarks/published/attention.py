"""Attention transfer as the published implementation computes it, written afresh."""

import torch.nn.functional as F


def attention_loss(student, teacher):
    """Sum of squares over channels, normalised per sample, mean squared difference."""
    s = F.normalize(student.pow(2).sum(1).flatten(1))
    t = F.normalize(teacher.pow(2).sum(1).flatten(1))
    return (s - t).pow(2).mean()
