"""RBF affinities and the KD-SVD loss as the published implementations compute them."""

import math

import torch


def rbf_broadcast(x, gamma):
    """Every difference of every pair of rows stored: N x N x D memory."""
    return torch.exp(-gamma * (x.unsqueeze(1) - x.unsqueeze(0)).square().sum(-1))


def rbf_cdist(x, gamma):
    """torch's own distances, squared and exponentiated."""
    return torch.exp(-gamma * torch.cdist(x, x).square())


def rbf_gemm(x, gamma):
    """The best plain form: one matrix product."""
    norms = x.square().sum(-1)
    squared = norms.unsqueeze(1) + norms.unsqueeze(0) - 2 * (x @ x.T)
    return torch.exp(-gamma * squared.clamp(min=0))


def svd_rbf_broadcast(student_front, student_back, teacher_front, teacher_back, beta=8.0):
    """Both kernels of all pairs stored: B x D_back x D_front x k, several times."""

    def kernel(front, back):
        return torch.exp(-(back.unsqueeze(2) - front.unsqueeze(1)).square() / beta)

    student = kernel(student_front, student_back)
    teacher = kernel(teacher_front, teacher_back)
    return (student - teacher).square().sum() / student_front.shape[0]


def svd_rbf_gemm(student_front, student_back, teacher_front, teacher_back, beta=8.0, terms=8):
    """The best plain form: exp(2 f b / beta) as a power series, so that one matrix product with
    few columns gives student minus teacher and one matrix of it is stored. For |f|, |b| <= 1.
    """

    def features(x):  # (B, D, k) -> (B, k, D, terms)
        columns = [torch.exp(-x.square() / beta)]
        for i in range(1, terms):
            columns.append(columns[-1] * x * math.sqrt(2 / beta / i))
        return torch.stack(columns, -1).transpose(1, 2)

    front = torch.cat([features(student_front), -features(teacher_front)], -1)
    back = torch.cat([features(student_back), features(teacher_back)], -1)
    return (back @ front.mT).square().sum() / len(student_front)


def affinity_loss_gemm(student, teacher, gamma):
    """Both N x N matrices by a GEMM each, and the mean of their squared difference."""
    with torch.no_grad():
        target = rbf_gemm(teacher, gamma)
    return (rbf_gemm(student, gamma) - target).square().mean()
