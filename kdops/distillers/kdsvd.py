"""Self-supervised knowledge distillation using singular value decomposition (Lee et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kdops.distillers._base import Levels, Pair, outside_autocast
from kdops.distillers._connectors import ConnectedDistiller
from kdops.distillers._masks import Mask, level_masks
from kdops.distillers._spectral import aligned_vectors, projected_vectors, vector_counts
from kdops.ops.rbf import svd_rbf_loss


class KDSVD(ConnectedDistiller):
    """KD-SVD: relations between the singular vectors of consecutive levels.

    Every map is a matrix (B, L, D), positions by channels. V_T: the teacher's first k right
    singular vectors with canonical sign, V_S: for each of them the nearest of the student's
    k + candidates, both times σ̂ = σ_T[:k] / ‖σ_T[:k]‖. For consecutive levels
    K_c[m, n] = exp(-(V_back[m, c] - V_front[n, c])² / β), L = Σ_pairs Σ_c Σ_mn (K_S - K_T)² / B.

    Two or more levels of maps (B, C, *S) or tokens (B, N, D). Sizes may differ, channels only with
    connectors (student_channels and teacher_channels, or from_sample).
    k = 1 (k <= 16 suffices), β = 8.
    variant: "mean" (/ B), "sum" (over the batch), "paper" (½ Σ √k). Per-pair weights.
    student_svd=False: V_S = l2norm(F_Sᵀ U_T), no decomposition of the student; equal sizes.
    canonical_teacher=False leaves the teacher's signs to the library, as published codes do: the
    loss then differs between CPU and GPU. The gradient is exact and finite (dead and duplicate
    channels, zero samples); published codes are off by a factor 2, zero, or NaN.
    Train it with ``kdops.training.clip_to_main``, as the paper does.
    """

    takes = ("map", "tokens", "pairs")
    channels_rule = "equal or connector"
    paper = "Lee et al. 2018"

    def __init__(
        self,
        student_channels: int | Sequence[int] | None = None,
        teacher_channels: int | Sequence[int] | None = None,
        *,
        k: int = 1,
        candidates: int = 3,
        beta: float = 8.0,
        variant: str = "mean",
        student_svd: bool = True,
        canonical_teacher: bool = True,
        weights: Sequence[float] | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__(student_channels, teacher_channels, weights=weights, layout=layout)
        if k < 1 or candidates < 0:
            raise ValueError(f"KDSVD: k >= 1 and candidates >= 0, got {k} and {candidates}")
        self.k, self.candidates, self.beta, self.variant = k, candidates, float(beta), variant
        self.student_svd, self.canonical_teacher = student_svd, canonical_teacher

    def vectors(self, student: Levels, teacher: Levels, mask: Mask = None) -> list[Pair]:
        """(V_S, V_T) of every level, (B, D, k), scaled by σ̂."""
        pairs = self.pairs(student, teacher, mask)
        self.check_maps(pairs, least=2)
        masks = level_masks(self.name, mask, [s for s, _ in pairs])
        k, canonical, found = self.k, self.canonical_teacher, []
        with outside_autocast(pairs[0][0]):
            for i, pair in enumerate(self.connect(pairs)):
                count = vector_counts(self.name, i, pair, k, self.candidates)
                if self.student_svd:
                    found.append(aligned_vectors(pair, k, count, canonical, masks[i]))
                else:
                    found.append(projected_vectors(self.name, i, pair, k, canonical))
        return found

    def forward(self, student: Levels, teacher: Levels, *, mask: Mask = None) -> Tensor:
        s, t = zip(*self.vectors(student, teacher, mask), strict=True)
        terms = [
            svd_rbf_loss(s[i - 1], s[i], t[i - 1], t[i], beta=self.beta, variant=self.variant)
            for i in range(1, len(s))
        ]
        return self.total(terms)
