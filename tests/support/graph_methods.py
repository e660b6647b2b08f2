"""The singular vectors and graphs of KD-SVD, MHGD and IEP, written out on their own."""

import torch
from support.distiller_cases import leaf

STUDENT = [(5, 4, 4), (6, 4, 2), (7, 3, 2)]
TEACHER = [(5, 6, 3), (6, 4, 4), (7, 2, 3)]


def sample(batch=3, student=STUDENT, teacher=TEACHER):
    s = [leaf(batch, *shape, seed=i) for i, shape in enumerate(student)]
    t = [leaf(batch, *shape, seed=20 + i).detach() for i, shape in enumerate(teacher)]
    return s, t


def svd(f):
    """U (L, r), σ (r), V (D, r) of one sample's map (D, H, W), canonical signs."""
    u, s, vh = torch.linalg.svd(f.reshape(f.shape[0], -1).T, full_matrices=False)
    for i in range(vh.shape[0]):
        if vh[i].max() + vh[i].min() < 0:
            vh = torch.cat([vh[:i], -vh[i : i + 1], vh[i + 1 :]])
            u = torch.cat([u[:, :i], -u[:, i : i + 1], u[:, i + 1 :]], 1)
    return u, s, vh.T


def vectors(f_s, f_t, k, projected):
    """One sample: columns V_S and V_T, scaled by the teacher's singular values."""
    u_t, sigma, v_t = svd(f_t)
    sigma = sigma[:k] / (sigma[:k] ** 2).sum().sqrt()
    v_s = svd(f_s)[2]
    columns = []
    for j in range(k):
        if projected:
            v = f_s.reshape(f_s.shape[0], -1) @ u_t[:, j]
            columns.append(v / (v**2).sum().sqrt())
            continue
        cosines = [float(v_s[:, i].detach() @ v_t[:, j]) for i in range(min(k + 3, v_s.shape[1]))]
        best = max(range(len(cosines)), key=lambda i: abs(cosines[i]))
        columns.append(v_s[:, best] * (1 if cosines[best] > 0 else -1))
    return torch.stack(columns, 1) * sigma, v_t[:, :k] * sigma


def normalised(module, x):
    """Linear and BatchNorm with the running statistics, by hand."""
    linear, norm = module
    y = x @ linear.weight.T
    y = (y - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps)
    return y * norm.weight + norm.bias


def logits(head, front, back, heads):
    theta, phi = normalised(head.theta, back), normalised(head.phi, front)
    width = (front.shape[1] + back.shape[1]) // 2
    columns = [slice(h * width, (h + 1) * width) for h in range(heads)]
    return torch.stack([theta[:, c] @ phi[:, c].T for c in columns])


def divergence(a, b):
    p, q = a.exp() / a.exp().sum(-1, keepdim=True), b.exp() / b.exp().sum(-1, keepdim=True)
    return (p * (p / q).log()).sum()
