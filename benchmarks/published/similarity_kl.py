"""Relations of softmaxed similarities as the published implementations compute them."""

import torch
import torch.nn.functional as F


def relation_kl_gemm(student, teacher, tau):
    """The best plain form: a GEMM and a log_softmax for each network, both N x N matrices kept."""

    def logits(x):
        x = F.normalize(x, dim=-1)
        return x @ x.mT / tau

    with torch.no_grad():
        target = logits(teacher).log_softmax(-1)
    log_s = logits(student).log_softmax(-1)
    return F.kl_div(log_s, target, reduction="batchmean", log_target=True)


def relation_kl_minilm(student, teacher):
    """MiniLM's relation of values: scaled inner products of heads (B, heads, N, D), the mean over
    rows of the KL divergence of the softmaxed relations."""

    def relation(x):
        return (x @ x.mT / x.shape[-1] ** 0.5).softmax(-1)

    with torch.no_grad():
        target = relation(teacher)
    return (target * (target.log() - relation(student).log())).sum(-1).mean()


def pkt(student, teacher, eps=1e-7):
    """PKT: cosine similarities shifted to [0, 1], rows divided by their sums."""

    def shares(x):
        x = x / (x.square().sum(1, keepdim=True).sqrt() + eps)
        x = torch.where(x.isnan(), 0.0, x)
        similarity = (x @ x.T + 1) / 2
        return similarity / similarity.sum(1, keepdim=True)

    with torch.no_grad():
        target = shares(teacher)
    return (target * torch.log((target + eps) / (shares(student) + eps))).mean()
