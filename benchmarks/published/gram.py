"""Gram, FSP and NST as the published implementations compute them, written afresh."""

import torch
import torch.nn.functional as F


def fsp_bmm(f1, f2):
    """The form of most libraries: one batched matrix product."""
    x, y = f1.flatten(2), f2.flatten(2)
    return torch.bmm(x, y.transpose(1, 2)) / x.shape[-1]


def fsp_loss(s1, s2, t1, t2):
    """Two FSP matrices by bmm and half their squared difference; maps of equal size."""
    length = s1[0, 0].numel()
    with torch.no_grad():
        teacher = t1.flatten(2) @ t2.flatten(2).mT / length
    student = s1.flatten(2) @ s2.flatten(2).mT / length
    return 0.5 * (student - teacher).pow(2).sum() / max(len(s1), 1)


def fsp_loss_fused(s1, s2, t1, t2):
    """The best plain form: the teacher's matrix is subtracted inside the student's product."""
    length = s1[0, 0].numel()
    with torch.no_grad():
        teacher = t1.flatten(2) @ t2.flatten(2).mT
    difference = torch.baddbmm(teacher, s1.flatten(2), s2.flatten(2).mT, beta=-1)
    return difference.square().sum() * (0.5 / length**2 / max(len(s1), 1))


def nst_broadcast(student, teacher):
    """MMD² with the quadratic kernel; all products of channel pairs stored before the sum."""
    s, t = F.normalize(student.flatten(2), dim=2), F.normalize(teacher.flatten(2), dim=2)

    def kernel(x, y):
        return (x.unsqueeze(2) * y.unsqueeze(1)).sum(-1).pow(2).mean()

    return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)


def nst_gemm(student, teacher):
    """The same by three batched matrix products."""
    s, t = F.normalize(student.flatten(2), dim=2), F.normalize(teacher.flatten(2), dim=2)
    with torch.no_grad():
        own = (t @ t.mT).pow(2).mean()
    return own + (s @ s.mT).pow(2).mean() - 2 * (s @ t.mT).pow(2).mean()
