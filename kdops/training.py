"""Training with a distiller: the clipped gradient of KD-SVD (clip_to_main), fine-tuning
(initialise_from), chains of networks (generations, assistant_chain) and one loop (fit) with a
progress bar, AMP, checkpoint and resume, and a CSV or TensorBoard log; what a fixed teacher says
of every sample, kept on disk (TeacherCache, Indexed).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from kdops._clip import (
    Gradients,
    clip_gradients,
    clip_to_main,
    forget_factor,
    gaussian_ramp,
    sigmoid_ramp,
)
from kdops._fit import Step, fit
from kdops._layers import unwrap
from kdops._teacher_cache import Indexed, TeacherCache

__all__ = [
    "Gradients",
    "Indexed",
    "Initialisation",
    "Step",
    "TeacherCache",
    "assistant_chain",
    "clip_gradients",
    "clip_to_main",
    "fit",
    "forget_factor",
    "gaussian_ramp",
    "generations",
    "initialise_from",
    "sigmoid_ramp",
]


@dataclass
class Initialisation:
    """What initialise_from did, by parameter and buffer name."""

    copied: list[str]
    mismatched: dict[str, tuple[list[int], list[int]]]  # student's shape, source's shape
    missing: list[str]  # in the student only
    unused: list[str]  # in the source only


def initialise_from(student: nn.Module, source: nn.Module) -> Initialisation:
    """Fine-tuning: copy every parameter and buffer of equal name and shape; report the others."""
    mine, theirs = unwrap(student).state_dict(), unwrap(source).state_dict()
    both = [k for k in mine if k in theirs]
    copied = [k for k in both if mine[k].shape == theirs[k].shape]
    for name in copied:
        mine[name].copy_(theirs[name])
    other = {k: (list(mine[k].shape), list(theirs[k].shape)) for k in both if k not in copied}
    missing = [k for k in mine if k not in theirs]
    return Initialisation(copied, other, missing, [k for k in theirs if k not in mine])


Train = Callable[[nn.Module, nn.Module | None], object]


def generations(make: Callable[[], nn.Module], train: Train, count: int) -> list[nn.Module]:
    """Born-again networks: train(net, previous) for each of count fresh nets, None at first."""
    nets = [make() for _ in range(count)]
    for i, net in enumerate(nets):
        train(net, nets[i - 1] if i else None)
    return nets


def assistant_chain(teacher: nn.Module, learners: Sequence[nn.Module], train: Train) -> nn.Module:
    """Teacher assistants: train(learner, teacher) down the chain; the last learner is returned."""
    for learner in learners:
        train(learner, teacher)
        teacher = learner
    return teacher
