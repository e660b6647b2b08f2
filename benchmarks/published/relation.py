"""Relation losses as the published implementations compute them, written afresh."""

import torch
import torch.nn.functional as F


def rkd_pdist(x):
    """Distances by the Gram expansion of the raw rows, clamped before the root."""
    squares = x.pow(2).sum(1)
    product = x @ x.t()
    d = (squares.unsqueeze(1) + squares.unsqueeze(0) - 2 * product).clamp(min=1e-12).sqrt()
    d = d.clone()
    d[range(len(x)), range(len(x))] = 0
    return d


def rkd_distance(student, teacher):
    """Distances over their mean, then smooth-L1."""
    with torch.no_grad():
        t = rkd_pdist(teacher)
        t = t / t[t > 0].mean()
    d = rkd_pdist(student)
    return F.smooth_l1_loss(d / d[d > 0].mean(), t)


def rkd_angle(student, teacher):
    """All N x N x D unit differences and all N x N x N cosines stored."""
    with torch.no_grad():
        differences = teacher.unsqueeze(0) - teacher.unsqueeze(1)
        unit = F.normalize(differences, p=2, dim=2)
        t = torch.bmm(unit, unit.transpose(1, 2)).view(-1)
    differences = student.unsqueeze(0) - student.unsqueeze(1)
    unit = F.normalize(differences, p=2, dim=2)
    s = torch.bmm(unit, unit.transpose(1, 2)).view(-1)
    return F.smooth_l1_loss(s, t)


def similarity(student, teacher):
    """Row-normalised Gram matrices of both and their difference."""
    n = student.shape[0]
    s, t = student.view(n, -1), teacher.view(n, -1)
    s, t = F.normalize(s @ s.t()), F.normalize(t @ t.t())
    return (t - s).pow(2).view(-1, 1).sum(0) / (n * n)
