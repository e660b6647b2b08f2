"""A distiller of one's own from the operators: match singular values and affinities of embeddings.

python examples/custom_distiller.py
"""

import torch
from torch import Tensor, nn

from kdops import batched_svd, rbf_affinity_loss


class SpectrumAndNeighbours(nn.Module):
    """L = mean (σ̂_S - σ̂_T)² + mean_ij (K_S - K_T)², σ̂ the first k singular values, normalised."""

    def __init__(self, k: int = 4, gamma: float = 0.05) -> None:
        super().__init__()
        self.k, self.gamma = k, gamma

    def spectrum(self, maps: Tensor) -> Tensor:
        return nn.functional.normalize(batched_svd(maps.flatten(2), self.k, compute_u=False).S)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        sigma = (self.spectrum(student) - self.spectrum(teacher.detach())).square().mean()
        embeddings = [x.mean((2, 3)) for x in (student, teacher)]
        return sigma + rbf_affinity_loss(*embeddings, gamma=self.gamma)


def main() -> list[float]:
    torch.manual_seed(0)
    student = torch.randn(32, 16, 8, 8, requires_grad=True)
    teacher, method = torch.randn(32, 24, 4, 4), SpectrumAndNeighbours()
    optimizer = torch.optim.Adam([student], 0.05)
    losses = []
    for _ in range(10):
        loss = method(student, teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    print(f"loss {losses[0]:.5f} -> {losses[-1]:.5f}")
    return losses


if __name__ == "__main__":
    main()
