"""Whole distillers in plain PyTorch, as their codes run today, written afresh.

Each is a function of (student levels, teacher levels). What no operator of kdops touches (trained
heads, connectors) is taken from the kdops method, so that both sides compute the same loss.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F

from benchmarks.published.attention import attention_loss
from benchmarks.published.gram import fsp_loss, nst_gemm
from benchmarks.published.relation import rkd_angle, rkd_distance, similarity


def canonical(v):
    """Signs with max + min > 0 for vectors (B, D, k)."""
    return torch.where(v.amax(1, keepdim=True) + v.amin(1, keepdim=True) < 0, -v, v)


def top_vectors(f, k):
    """All singular triples of (B, L, D) by torch.linalg.svd, of which k right vectors are used."""
    _, _, vh = torch.linalg.svd(f.flatten(2).mT, full_matrices=False)
    return vh[:, :k].mT


def align(student, teacher):
    """The student's nearest candidate for each teacher vector, with its sign."""
    cosines = student.mT @ teacher
    with torch.no_grad():
        index = cosines.abs().argmax(1, keepdim=True)
        sign = cosines.gather(1, index).sign()
    return student.gather(2, index.expand(-1, student.shape[1], -1)) * sign


def level_vectors(s, t, k=1, candidates=3):
    """(V_S, V_T) of one level; k = 1, whose weight is one."""
    with torch.no_grad():
        teacher = canonical(top_vectors(t, k))
    return align(top_vectors(s, k + candidates), teacher), teacher


def rbf_relation(front, back, beta=8.0):
    """exp(-(back_m - front_n)² / beta) with all differences stored, (B, D_back, D_front, k)."""
    return torch.exp(-((back.unsqueeze(2) - front.unsqueeze(1)) ** 2) / beta)


def rbf_loss(front_s, back_s, front_t, back_t):
    with torch.no_grad():
        teacher = rbf_relation(front_t, back_t)
    return (rbf_relation(front_s, back_s) - teacher).pow(2).sum() / len(front_s)


def kdsvd(student, teacher):
    vectors = [level_vectors(s, t) for s, t in zip(student, teacher, strict=True)]
    terms = [rbf_loss(f[0], b[0], f[1], b[1]) for f, b in pairwise(vectors)]
    return torch.stack(terms).sum()


def row_divergence(p, q):
    log_p, log_q = F.log_softmax(p, -1), F.log_softmax(q, -1)
    return (log_p.exp() * (log_p - log_q)).sum()


def mhgd(method):
    """MHGD with the trained heads of a kdops method."""

    def loss(student, teacher):
        pairs = [level_vectors(s, t) for s, t in zip(student, teacher, strict=True)]
        vectors = [(s.squeeze(2), t.squeeze(2)) for s, t in pairs]
        terms = []
        for head, (front, back) in zip(method.heads, pairwise(vectors), strict=True):
            with torch.no_grad():
                target = head.logits(front[1], back[1]).tanh()
            terms.append(row_divergence(head.logits(front[0], back[0]).tanh(), target))
        return torch.stack(terms).sum()

    return loss


def _plane(x):
    c = x.shape[1] ** -0.5
    return 2 * (x + c) / (1 + c * x.sum(1, keepdim=True)).clamp_min(1e-3) - 2 * c


def _projected(s, t):
    """(v_S, v_T), both (B, D): the teacher's first pair by a whole SVD, the student on its u."""
    with torch.no_grad():
        u, _, vh = torch.linalg.svd(t.flatten(2).mT, full_matrices=False)
        v = vh[:, :1].mT
        flip = canonical(v)
        u = u[:, :, :1] * (flip * v).sum(1, keepdim=True)
    return F.normalize((s.flatten(2) @ u).squeeze(2), dim=1), flip.squeeze(2)


def iep(method):
    """IEP with the trained PCA and graph networks of a kdops method."""

    def loss(student, teacher):
        codes = []
        for pca, s, t in zip(method.codes, student, teacher, strict=True):
            codes.append(tuple(pca(_plane(v)) for v in _projected(s, t)))
        terms = []
        for graph, ((f_s, f_t), (b_s, b_t)) in zip(method.graphs, pairwise(codes), strict=True):
            with torch.no_grad():
                graph_t, messages_t = graph(f_t, b_t)
            graph_s, messages_s = graph(f_s, b_s)
            terms.append(row_divergence(graph_t, graph_s))
            terms.append((messages_s - messages_t).abs().sum(2).mean())
        return torch.stack(terms).sum()

    return loss


def fsp(student, teacher):
    """FSP of consecutive levels, the larger map max-pooled to the smaller, by bmm."""
    terms = []
    for i in range(1, len(student)):
        s, t = (_same_size(x[i - 1], x[i]) for x in (student, teacher))
        terms.append(fsp_loss(*s, *t))
    return torch.stack(terms).sum()


def _same_size(front, back):
    return F.adaptive_max_pool2d(front, back.shape[2:]), back


def nst(student, teacher):
    terms = [nst_gemm(s, t) for s, t in zip(student, teacher, strict=True)]
    return 50 * torch.stack(terms).sum()


def attention(student, teacher):
    terms = [attention_loss(s, t) for s, t in zip(student, teacher, strict=True)]
    return 1000 * torch.stack(terms).sum()


def rkd(student, teacher):
    return 25 * rkd_distance(student, teacher) + 50 * rkd_angle(student, teacher)


def similarity_last(student, teacher):
    return similarity(student, teacher).sum()


def soft_target(student, teacher, temperature=4.0):
    log_p = F.log_softmax(student / temperature, 1)
    target = F.softmax(teacher.detach() / temperature, 1)
    return temperature**2 * F.kl_div(log_p, target, reduction="batchmean")


def fitnet(method):
    """Hints through the kdops method's regressors."""

    def loss(student, teacher):
        triples = zip(method.regressors, student, teacher, strict=True)
        return torch.stack([F.mse_loss(net(s), t) for net, s, t in triples]).sum()

    return loss


def activation_boundary(method, margin=1.0, scale=3e-3):
    """The margin loss with its masks written out, through the kdops method's connectors."""

    def loss(student, teacher):
        terms = []
        for i, (net, f, t) in enumerate(zip(method.connectors, student, teacher, strict=True)):
            s = net(f)
            silent = (s + margin).pow(2) * ((s > -margin) & (t <= 0)).float()
            active = (s - margin).pow(2) * ((s <= margin) & (t > 0)).float()
            terms.append((silent + active).sum() / len(s) * 0.5 ** (len(student) - 1 - i))
        return scale * torch.stack(terms).sum()

    return loss


def mutual(logits, target):
    """Two nets: cross entropy plus the divergence from the other, which is detached."""
    a, b = logits
    losses = [F.cross_entropy(z, target) for z in (a, b)]
    for own, other in ((a, b), (b, a)):
        p = F.softmax(other.detach(), 1)
        losses.append(F.kl_div(F.log_softmax(own, 1), p, reduction="batchmean"))
    return torch.stack(losses).sum()
