"""Soft targets (Hinton et al. 2015) and the teacher-assistant and born-again forms of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdops._layout import as_map, carried, is_tokens, layout_of
from kdops.distillers._base import (
    Distiller,
    Pair,
    check_device,
    check_feature,
    full,
    mean,
    shapes,
)
from kdops.distillers._masks import Mask, gathered, level_masks
from kdops.distillers._standard import largest_at_hand, standardised


def divergence(log_s: Tensor, log_t: Tensor, dim: int) -> Tensor:
    """Σ p_T (log p_T - log p_S) over dim; where the teacher has no mass, nothing is added."""
    p_t = log_t.exp()
    gap = log_t - log_s
    return (p_t * torch.where(p_t == 0, torch.zeros_like(gap), gap)).sum(dim)


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p_T || p_S) per sample, p = softmax(z / temperature) over dim 1; (B, *rest)."""
    student, teacher, dim = full(student), teacher.to(full(student).dtype), 1
    if is_tokens(student):  # as they lie, or softmax would copy them
        student, teacher, dim = student.transpose(1, 2), teacher.transpose(1, 2), 2
    log_p = F.log_softmax(student / temperature, dim)
    log_t = F.log_softmax(teacher / temperature, dim)
    return divergence(log_p, log_t, dim)


def check_logits(method: str, student: Tensor, teacher: Tensor) -> None:
    check_feature(method, 0, "student", student)
    check_feature(method, 0, "teacher", teacher)
    check_device(method, 0, student, teacher)
    if student.shape != teacher.shape:
        raise ValueError(
            f"{method}: logits must be (B, classes) and alike, got {shapes(student, teacher)}; "
            "student and teacher need the same classes in the same order"
        )


def check_target(method: str, logits: Tensor, target: Tensor) -> None:
    """Class indices (B, *rest), or probabilities shaped as the logits."""
    expected = [logits.shape[0], *logits.shape[2:]]
    known = list(target.shape) == expected and target.dtype in (torch.int64, torch.uint8)
    if target.device != logits.device:
        raise ValueError(f"{method}: logits on {logits.device}, the target on {target.device}")
    if not known and not (target.shape == logits.shape and target.is_floating_point()):
        raise ValueError(
            f"{method}: expected a target of class indices (int64) {expected} or of probabilities "
            f"{list(logits.shape)} for logits {shapes(logits)}, got {shapes(target)} {target.dtype}"
        )


def hard_loss(method: str, logits: Tensor, target: Tensor) -> Tensor:
    """The task's cross-entropy."""
    check_target(method, logits, target)
    return F.cross_entropy(full(logits), target) if logits.numel() else full(logits).sum()


def over_labels(losses: Tensor, labels: Tensor) -> Tensor:
    """The mean of the rows' losses (n,) without rows of a class below 0, which say "ignore"."""
    known = labels >= 0
    return torch.where(known, losses, losses.new_zeros(())).sum() / known.sum().clamp_min(1)


class LogitDistiller(Distiller):
    """A method of logits: (B, classes), maps (B, classes, *S), or tokens (B, N, classes) with
    layout="tokens", whose padding a mask leaves out."""

    takes = ("logits", "map", "tokens")
    padding = "valid"
    channels_rule, positions_rule = "equal", "equal"

    def inputs_from(self, features: Any, logits: Tensor | None) -> Any:
        return logits

    def logits(self, student: Tensor, teacher: Tensor, mask: Mask = None) -> Pair:
        """Both as maps (B, classes, *S), checked."""
        check_logits(self.name, student, teacher)
        [pair] = self.pairs(student, teacher, mask)
        return pair

    def class_rows(self, student: Tensor, teacher: Tensor, mask: Mask = None) -> Pair:
        """Both as rows (n, classes), one for every valid position of every sample."""
        s, t = (z.movedim(1, -1).flatten(0, -2) for z in self.logits(student, teacher, mask))
        return s, t

    def labels(self, logits: Tensor, target: Tensor | None, mask: Mask = None) -> Tensor:
        """The class of every row of class_rows, (n,)."""
        if target is None:
            raise ValueError(
                f"{self.name}: needs the classes of the samples: pass target=, int64 of the "
                "logits' shape without the classes; fit passes what its loader gives"
            )
        where = f"{self.name}: level 0: the student"
        z = as_map(logits, layout_of(where, logits, self.layout))
        check_target(self.name, z, target)
        if target.is_floating_point():
            raise ValueError(
                f"{self.name}: needs class indices, got probabilities {shapes(target)}; pass "
                "their argmax over the classes"
            )
        [m] = level_masks(self.name, mask, [z])
        found = target.flatten() if m is None else target.flatten(1)[m]
        if (largest := largest_at_hand(found)) >= z.shape[1]:
            raise ValueError(
                f"{self.name}: the target holds class {largest}, the logits have {z.shape[1]} "
                f"classes, {shapes(logits)}"
            )
        return found.long()

    def hard(self, logits: Tensor, target: Tensor, mask: Mask = None) -> Tensor:
        """Cross-entropy with the target of the logits as they were given, padding left out."""
        check_feature(self.name, 0, "student", logits)
        where = f"{self.name}: level 0: the student"
        z = as_map(logits, layout_of(where, logits, self.layout))
        if target.shape == logits.shape:
            target = as_map(target, "tokens" if is_tokens(z) else None)
        [m] = level_masks(self.name, mask, [z])
        if m is None:
            return hard_loss(self.name, z, target)
        check_target(self.name, z, target)
        if target.ndim == z.ndim:
            return hard_loss(self.name, gathered(z, m), gathered(target, m))
        return hard_loss(self.name, gathered(z, m), target.flatten(1)[m].unsqueeze(1))


class SoftTarget(LogitDistiller):
    """Softened logits: L = T² · mean_b Σ_c p_T (log p_T - log p_S), p = softmax(z / T).

    With a target (class indices) the full objective alpha · L + (1 - alpha) · CE is returned,
    without one L alone. Logits (B, classes), maps (B, classes, *S) or tokens (B, N, classes); of
    maps and tokens the mean over samples and positions. Computed with log_softmax.

    temperature: T, 4. alpha: 0.9. variant: "paper", or "mean": the mean over B · classes.
    standardise: z <- (z - mean) / (std + 1e-7) over the classes before T, which is then 2 (logit
    standardisation, Sun et al. 2024; published weight 9); a constant row becomes zero.
    Differs from several codes that use the mean over B · classes (100 times smaller at 100
    classes), omit T² or drop it when no targets are given.
    """

    paper = "Hinton et al. 2015"

    def __init__(
        self,
        temperature: float | None = None,
        alpha: float = 0.9,
        *,
        variant: str = "paper",
        standardise: bool = False,
        layout: str | None = None,
    ) -> None:
        super().__init__(layout=layout)
        self.standardise = bool(standardise)
        if temperature is None:
            temperature = 2.0 if standardise else 4.0
        if temperature <= 0:
            raise ValueError(f"{self.name}: the temperature must be positive, got {temperature}")
        if variant not in ("paper", "mean"):
            raise ValueError(f"{self.name}: variant is 'paper' or 'mean', got {variant!r}")
        self.temperature, self.alpha, self.variant = float(temperature), float(alpha), variant

    def divergence(self, student: Tensor, teacher: Tensor, mask: Mask = None) -> Tensor:
        """T² · KL alone."""
        s, t = self.logits(student, teacher, mask)
        if self.standardise:
            s, t = (carried(standardised(z, 1, eps=1e-7, correction=1), z) for z in (s, t))
        loss = mean(soft_divergence(s, t, self.temperature))
        if self.variant == "mean":
            loss = loss / s.shape[1]
        return self.temperature**2 * loss

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        target: Tensor | None = None,
        *,
        mask: Mask = None,
    ) -> Tensor:
        soft = self.divergence(student, teacher, mask)
        return soft if target is None else self.both(soft, self.hard(student, target, mask))

    def both(self, soft: Tensor, hard: Tensor) -> Tensor:
        """The objective with a target."""
        return self.alpha * soft + (1 - self.alpha) * hard


class TeacherAssistant(SoftTarget):
    """Teacher assistants (Mirzadeh et al. 2020): (1 - λ) CE + λ T² KL at every link of a chain.

    The chain teacher -> assistant(s) -> student is ``kdops.training.assistant_chain``; this is
    the loss of one link. Without a target the KL term alone. T = 4, λ = 0.9.
    """

    paper = "Mirzadeh et al. 2020"

    def __init__(
        self, temperature: float = 4.0, lam: float = 0.9, *, layout: str | None = None
    ) -> None:
        super().__init__(temperature, lam, layout=layout)


class BornAgain(SoftTarget):
    """Born-again networks (Furlanello et al. 2018): CE + T² KL to the previous generation.

    Teacher and student share the architecture; ``kdops.training.generations`` trains the sequence
    and ``BornAgain.ensemble`` averages the logits of the generations. T = 4; without a target the
    KL term alone. Differs from the paper in the temperature (T = 1 gives its form).
    """

    paper = "Furlanello et al. 2018"

    def __init__(self, temperature: float = 4.0, *, layout: str | None = None) -> None:
        super().__init__(temperature, layout=layout)

    def both(self, soft: Tensor, hard: Tensor) -> Tensor:
        return soft + hard

    @staticmethod
    def ensemble(logits: Sequence[Tensor]) -> Tensor:
        """The mean of the generations' logits."""
        return torch.stack([full(z) for z in logits]).mean(0)
