"""RBF affinities and the KD-SVD loss as the published implementations compute them."""

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
