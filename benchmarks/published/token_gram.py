"""Gram anchoring as published (DINOv3), its plain closed form, CKA, and relations of channels."""

import torch
import torch.nn.functional as F


def anchoring(student, teacher, negatives="keep"):
    """Both N x N matrices, in which the dropped entries are overwritten."""
    s, t = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    own, other = s @ s.mT, t @ t.mT
    if negatives != "keep":
        other[other < 0] = 0.0
    if negatives == "drop":
        own[own < 0] = 0.0
    return F.mse_loss(own, other)


def anchoring_by_features(student, teacher):
    """|XᵀX|² - 2 |XᵀY|² + |YᵀY|²: no N x N, negatives kept."""
    s, t = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    pairs = student.shape[0] * student.shape[1] ** 2
    sizes = [(a.mT @ b).square().sum() for a, b in ((s, s), (s, t), (t, t))]
    return (sizes[0] - 2 * sizes[1] + sizes[2]) / pairs


def anchoring_clamped(student, teacher):
    """Negatives of both dropped, without masks."""
    s, t = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    return (torch.relu(s @ s.mT) - torch.relu(t @ t.mT)).square().mean()


def cka(student, teacher):
    """As people write it: the N x N matrices by the centring matrix, their inner products."""
    n = len(student)
    h = torch.eye(n, dtype=student.dtype, device=student.device) - 1 / n
    own, other = (h @ (x @ x.mT) @ h for x in (student, teacher))
    return 1 - (own * other).sum() / (own.norm() * other.norm())


def cka_of_centred_rows(student, teacher):
    """The rows centred instead, and the smaller of rows and columns."""
    s, t = student - student.mean(0), teacher - teacher.mean(0)
    if len(s) <= max(s.shape[1], t.shape[1]):
        own, other = s @ s.mT, t @ t.mT
        return 1 - (own * other).sum() / (own.norm() * other.norm())
    return 1 - (t.mT @ s).square().sum() / ((s.mT @ s).norm() * (t.mT @ t).norm())


def ickd(student, teacher):
    """Through C x C matrices."""
    s, t = (F.normalize(x.flatten(2) @ x.flatten(2).mT, dim=2) for x in (student, teacher))
    return (s - t).square().sum() / (student.shape[1] * student.shape[0] ** 2)


def kta(student, teacher):
    """Through L x L matrices, one for every channel, a sample at a time."""
    total = 0.0
    for pair in zip(student.flatten(2), teacher.flatten(2), strict=True):
        s, t = (F.normalize(x, dim=1) for x in pair)
        difference = s[:, :, None] * s[:, None, :] - t[:, :, None] * t[:, None, :]
        total = total + difference.square().sum((1, 2)).sqrt().sum()
    return total / (student.shape[0] * student[0, 0].numel())


def kta_closed(student, teacher):
    s, t = (F.normalize(x.flatten(2), dim=2) for x in (student, teacher))
    norms = (2 * (1 - (s * t).sum(2).square())).sqrt()
    return norms.sum(1).mean() / student[0, 0].numel()
