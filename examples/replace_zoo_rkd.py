"""Replacing the usual RKD by ours: the same value, a finite gradient, and no N x N x D tensor.

    python examples/replace_zoo_rkd.py

`usual_rkd` is written here in the way distillation zoos have it: squared distances clamped at
1e-12, all difference vectors at once.
"""

import time

import torch
import torch.nn.functional as F
from torch import Tensor

from kdops.distillers import RKD


def usual_rkd(student: Tensor, teacher: Tensor) -> Tensor:
    """25 · distance + 50 · angle, (N, D) embeddings."""

    def distances(x: Tensor) -> Tensor:
        square = x.square().sum(1)
        d = (square[:, None] + square[None] - 2 * x @ x.T).clamp(min=1e-12).sqrt()
        d = d * (1 - torch.eye(len(x)))
        return d / d[d > 0].mean()

    def angles(x: Tensor) -> Tensor:
        e = F.normalize(x[None] - x[:, None], p=2, dim=2)
        return torch.bmm(e, e.transpose(1, 2))

    with torch.no_grad():
        d_t, a_t = distances(teacher), angles(teacher)
    distance = F.smooth_l1_loss(distances(student), d_t)
    return 25 * distance + 50 * F.smooth_l1_loss(angles(student), a_t)


def main(n: int = 128, d: int = 256) -> tuple[float, float]:
    torch.manual_seed(0)
    student, teacher = torch.randn(n, d, requires_grad=True), torch.randn(n, 2 * d)
    ours = RKD()  # was: criterion = RKDLoss(25, 50)
    values, seconds = [], []
    for method in (usual_rkd, ours):
        start = time.perf_counter()
        loss = method(student, teacher)
        (gradient,) = torch.autograd.grad(loss, student)
        seconds.append(time.perf_counter() - start)
        values.append((float(loss.detach()), float(gradient.norm())))
    print(f"loss      {values[0][0]:.6f} usual, {values[1][0]:.6f} kdops")
    print(f"gradient  {values[0][1]:.6f} usual, {values[1][1]:.6f} kdops")
    print(f"one call  {1000 * seconds[0]:.1f} ms usual, {1000 * seconds[1]:.1f} ms kdops (cold)")

    repeated = student.detach()[[0, 0, *range(1, n - 1)]].requires_grad_()
    for name, method in (("usual", usual_rkd), ("kdops", ours)):
        (gradient,) = torch.autograd.grad(method(repeated, teacher), repeated)
        print(f"with one image twice in the batch, gradient norm {name}: {gradient.norm():.3g}")
    return values[0][0], values[1][0]


if __name__ == "__main__":
    main()
