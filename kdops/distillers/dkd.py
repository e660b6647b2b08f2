"""Decoupled knowledge distillation (Zhao et al. 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdops.distillers._masks import Mask
from kdops.distillers.soft_target import LogitDistiller, divergence, over_labels


class DKD(LogitDistiller):
    """L = T² (α TCKD + β NCKD), both KL(T || S) of softmax(z / T), means over the samples.

    TCKD compares (p_y, 1 - p_y), y the sample's class; NCKD the distribution over the other
    classes. target: class indices, needed; those below 0 are left out. Logits (B, classes), maps
    (B, classes, *S) or tokens (B, N, classes), of which it is the mean over samples and positions.
    α 1, β 8, T 4.
    Differs from mdistiller and mmrazor in the sums: log(1 - p_y) is a logsumexp over the other
    classes and NCKD leaves class y out, where they take log of a sum of probabilities (infinite
    once p_y rounds to 1) and subtract 1000 from its logit. Two classes have no NCKD, it is 0.
    """

    paper = "Zhao et al. 2022"
    needs = ("target",)

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        *,
        layout: str | None = None,
    ) -> None:
        super().__init__(layout=layout)
        if temperature <= 0:
            raise ValueError(f"DKD: the temperature must be positive, got {temperature}")
        self.alpha, self.beta, self.temperature = float(alpha), float(beta), float(temperature)

    def forward(
        self, student: Tensor, teacher: Tensor, target: Tensor | None = None, *, mask: Mask = None
    ) -> Tensor:
        pair = self.class_rows(student, teacher, mask)
        labels = self.labels(student, target, mask)
        own = labels.clamp_min(0).unsqueeze(1)
        (target_s, other_s), (target_t, other_t) = (
            _decoupled(z / self.temperature, own) for z in pair
        )
        tckd = divergence(target_s, target_t, 1)
        nckd = divergence(other_s, other_t, 1)
        loss = over_labels(self.alpha * tckd + self.beta * nckd, labels)
        return self.temperature**2 * loss


def _decoupled(z: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms of (p_y, 1 - p_y) and of the distribution over the other classes."""
    lowest = torch.finfo(z.dtype).min
    others = z.scatter(1, own, lowest)  # finite: a single class has an empty sum, and no NaN
    log_p = F.log_softmax(z, 1).gather(1, own)
    log_rest = torch.logsumexp(others, 1, keepdim=True) - torch.logsumexp(z, 1, keepdim=True)
    return torch.cat([log_p, log_rest], 1), F.log_softmax(others, 1)
