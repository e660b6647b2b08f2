"""Relation losses as the published implementations compute them, written afresh.

The last three functions are the best plain PyTorch forms known to us.
"""

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


def rkd_distance_cdist(student, teacher):
    """The distance loss by torch.cdist."""
    count = len(student) * (len(student) - 1)
    with torch.no_grad():
        t = torch.cdist(teacher, teacher)
        t = t / (t.sum() / count)
    d = torch.cdist(student, student)
    return F.smooth_l1_loss(d / (d.sum() / count), t)


def _cosines(x):
    """cos at anchor i between j and k, (N, N, N), from one Gram matrix: no N x N x D tensor."""
    gram = x @ x.T
    own = gram.diagonal()
    squared = (own[:, None] + own - 2 * gram).clamp_min(0)
    apart = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    inverse = torch.where(apart, squared, 1).rsqrt() * apart
    product = gram + (own[:, None, None] - gram[:, :, None] - gram[:, None, :])
    return product * inverse[:, :, None] * inverse[:, None, :]


def rkd_angle_gram(student, teacher):
    """The angle loss of rows made mean-free, which costs the Gram form fewer digits."""
    with torch.no_grad():
        t = _cosines(teacher - teacher.mean(0))
    return F.smooth_l1_loss(_cosines(student - student.mean(0)), t)


def similarity_covariance(student, teacher):
    """The similarity loss from D x D matrices: for N > D fewer products than N x N needs."""
    s, t = student, teacher
    cross = ((s @ (s.T @ t)) * t).sum(1)
    norms = [((x @ (x.T @ x)) * x).sum(1).clamp_min(1e-24).sqrt() for x in (s, t)]
    return (2 - 2 * cross / (norms[0] * norms[1])).sum() / len(s) ** 2
