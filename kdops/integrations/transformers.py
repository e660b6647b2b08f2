"""Distillation in the Trainer of Hugging Face."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdops._term import Layers, Term, check_optimizer, own_parameters
from kdops.integrations import missing

try:
    from transformers import Trainer, TrainerCallback
except ImportError as error:
    raise missing("transformers", "transformers and accelerate", error) from error

FILE = "kdops_method.pt"


class _ForgetGradients(TrainerCallback):
    """After a step the Trainer forgets the gradients of its model, not those of the optimizer."""

    def __init__(self, method: nn.Module) -> None:
        self.method = method

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.method.zero_grad()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.method.zero_grad()


class DistillationTrainer(Trainer):
    """A Trainer whose loss is the model's + weight · method(student, teacher).

    >>> trainer = DistillationTrainer(student, args, train_dataset=data, teacher=teacher,
    ...     method=KDSVD([8, 8], [16, 16], layout="tokens"), layers=(student_names, teacher_names))

    layers = (student's, teacher's) are names, with at= as for a FeatureTap, or open taps; without
    them the method sees the logits; in a WeightedSum terms of logits see logits, the others
    features. "attention_mask" is the method's mask. The teacher gets the batch without its labels,
    in evaluation mode. Evaluation of the student is that of the Trainer, without the method.

    The method's parameters are a group of the Trainer's optimizer (an optimizer of your own must
    hold them, or a ValueError says so) and are written beside the model's weights; resuming reads
    them. max_grad_norm clips the student alone. With gradient accumulation relations see
    micro-batches. The log has "distill", the mean of the method's loss since the last line.
    """

    def __init__(
        self, *args: Any, teacher: nn.Module, method: nn.Module, layers: Layers | None = None,
        at: Any = "output", weight: float = 1.0, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        self.teacher, self.method = teacher.to(self.args.device), method.to(self.args.device)
        self.layers, self.at, self.weight = layers, at, weight
        self._term: Term | None = None
        self._sum, self._count = torch.zeros(()), 0
        self.add_callback(_ForgetGradients(method))
        if self.optimizer is not None:
            check_optimizer(type(self).__name__, self.optimizer, method, own_parameters(method))

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        given = self.optimizer is not None
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        own = list(own_parameters(self.method).values())
        if own and not given:
            optimizer.add_param_group({"params": own, "weight_decay": self.args.weight_decay})
        return optimizer

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self.method.train()
        with ExitStack() as stack:
            model = self.model
            self._term = Term(stack, model, self.teacher, self.method, self.layers, self.at)
            try:
                return super().train(*args, **kwargs)
            finally:
                self._term = None

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        batch = dict(inputs)  # the Trainer may take the labels out
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        if self._term is not None and model.training:
            with self.accelerator.autocast():
                extra = self._term(batch, outputs)
            assert extra is not None
            self._sum = self._sum.to(extra.device) + extra.detach()
            self._count += 1
            loss = loss + self.weight * extra / self._divisor(kwargs.get("num_items_in_batch"))
        return (loss, outputs) if return_outputs else loss

    def _divisor(self, items: Tensor | int | None) -> int:
        """By what the Trainer does not divide a loss which it takes for a sum over all the batches
        of a step (see Trainer.training_step); the method's is the mean of one batch."""
        summed = getattr(self, "loss_is_scaled_for_ga", None)
        if summed is None:
            by_model = self.model_accepts_loss_kwargs and items is not None
            summed = by_model or self.compute_loss_func is not None
        return int(self.current_gradient_accumulation_steps) if summed else 1

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._count:
            logs["distill"] = float(self._sum) / self._count
            self._sum, self._count = torch.zeros(()), 0
        super().log(logs, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        state = self.method.state_dict()
        if state and self.args.should_save:
            torch.save(state, Path(output_dir or self.args.output_dir) / FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_method(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_method(self.state.best_model_checkpoint)

    def _load_method(self, folder: Any) -> None:
        if not self.method.state_dict():
            return
        path, name = Path(folder) / FILE, type(self.method).__name__
        if not path.exists():
            raise ValueError(
                f"{type(self).__name__}: {folder} has no {FILE}, the state of {name}: it was not "
                "written by a DistillationTrainer with this method"
            )
        try:
            self.method.load_state_dict(torch.load(path, "cpu", weights_only=True))
        except RuntimeError as error:
            raise ValueError(
                f"{type(self).__name__}: {path} is of another method than this {name}: {error}"
            ) from error
