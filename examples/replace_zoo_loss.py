"""One line for a zoo's loss: values and gradients of five usual losses, and of ours.

    python examples/replace_zoo_loss.py

The usual ones are written here in the way distillation zoos have them. `replace_zoo_rkd.py` does it
for RKD, with what happens at repeated samples.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdops.distillers import CC, CWD, DIST, DKD, PKD


def usual_dkd(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """mdistiller's: α 1, β 8, T 4."""
    own = F.one_hot(target, student.shape[1]).bool()

    def two(z: Tensor) -> Tensor:
        p = F.softmax(z / 4, 1)
        return torch.stack([(p * own).sum(1), (p * ~own).sum(1)], 1)

    def rest(z: Tensor) -> Tensor:
        return F.log_softmax(z / 4 - 1000.0 * own, 1)

    tckd = F.kl_div(two(student).log(), two(teacher), reduction="batchmean")
    nckd = F.kl_div(rest(student), rest(teacher).exp(), reduction="batchmean")
    return 16 * (tckd + 8 * nckd)


def usual_dist(student: Tensor, teacher: Tensor) -> Tensor:
    """mmrazor's, τ 1."""

    def relation(a: Tensor, b: Tensor) -> Tensor:
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        return 1 - ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)).mean()

    p, q = student.softmax(1), teacher.softmax(1)
    return relation(p, q) + relation(p.T, q.T)


def usual_cc(student: Tensor, teacher: Tensor) -> Tensor:
    """AberHu's, γ .4, P 2."""

    def similarities(x: Tensor) -> Tensor:
        x = F.normalize(x, dim=-1)
        terms = [0.8**p / math.factorial(p) * (x @ x.T) ** p for p in range(3)]
        return math.exp(-0.8) * sum(terms)

    return F.mse_loss(similarities(student), similarities(teacher))


def usual_cwd(student: Tensor, teacher: Tensor) -> Tensor:
    """mmrazor's, τ 1."""
    p = F.log_softmax(student.flatten(0, 1).flatten(1), 1)
    q = F.softmax(teacher.flatten(0, 1).flatten(1), 1)
    return F.kl_div(p, q, reduction="batchmean")


def usual_pkd(student: Tensor, teacher: Tensor) -> Tensor:
    """mmrazor's."""

    def standard(x: Tensor) -> Tensor:
        x = x.transpose(0, 1).flatten(1)
        return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-6)

    return F.mse_loss(standard(student), standard(teacher)) / 2


def main(dtype: torch.dtype = torch.float32) -> dict[str, tuple[float, float]]:
    """name -> the largest relative difference of value and of gradient."""
    torch.manual_seed(0)
    sizes = (32, 100), (8, 16, 7, 7), (64, 128)
    z, f, x = [[torch.randn(size, dtype=dtype) for _ in range(2)] for size in sizes]
    target = torch.randint(100, (32,))
    cases = [  # the usual loss, ours, and what both are called with
        (usual_dkd, DKD(), (*z, target)),
        (usual_dist, DIST(1.0, eps=1e-8), z),
        (usual_cc, CC(), x),
        (usual_cwd, CWD(temperature=1.0), f),
        (usual_pkd, PKD(), f),
    ]
    found = {}
    for usual, ours, (student, *rest) in cases:
        student.requires_grad_()
        results = []
        for method in (usual, ours):
            loss = method(student, *rest)
            results.append((loss.detach(), *torch.autograd.grad(loss, student)))
        gaps = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(*results, strict=True)]
        found[ours.name] = (gaps[0], gaps[1])
        name, value = f"{usual.__name__} -> {ours.name}", float(results[1][0])
        print(f"{name:20} {value:10.6f}   value {gaps[0]:.0e}, gradient {gaps[1]:.0e} apart")
    return found


if __name__ == "__main__":
    main()
