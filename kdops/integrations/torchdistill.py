"""Methods in torchdistill's YAML: importing this module registers a loss and a student.

dependencies:
  - name: kdops.integrations.torchdistill

criterion:
  key: WeightedSumLoss
  kwargs:
    sub_terms:
      relations:
        weight: 1.0
        criterion:
          key: KdopsLoss
          kwargs: {method: KDSVD, options: {k: 2}, student: [layer1, layer2],
                   teacher: [layer1, layer2]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

import kdops.distillers
from kdops._batches import logits_of
from kdops._layout import Grid, check_cut, laid_out
from kdops._records import first_tensor
from kdops._term import own_parameters
from kdops.integrations import missing

try:
    from torchdistill.losses.registry import register_mid_level_loss
    from torchdistill.models.registry import register_auxiliary_model_wrapper
    from torchdistill.models.util import wrap_if_distributed
    from torchdistill.models.wrapper import AuxiliaryModelWrapper
except ImportError as error:
    raise missing("torchdistill", "torchdistill", error) from error

OUTPUT = "."  # torchdistill's name for a network itself
HELD = "kdops"  # where a KdopsStudent puts its method for the loss


def build(method: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A method by its name in kdops.distillers."""
    made: nn.Module = getattr(kdops.distillers, method)(**(options or {}))
    return made


@register_mid_level_loss(key="KdopsLoss")
class KdopsLoss(nn.Module):
    """A method of kdops.distillers on the outputs of layers that forward_hook lists.

    method, options: its name and arguments; without a method that of the KdopsStudent. student,
    teacher: the layers' paths, "." for a network's logits, which is the default; io: "output" or
    "input". layout, prefix and grid are those of a FeatureTap.

    torchdistill's optimizer has the parameters of the student alone, so a method with parameters of
    its own (connectors) is part of a KdopsStudent; here it is a ValueError.
    """

    def __init__(
        self, method: str | None = None, options: Mapping[str, Any] | None = None,
        student: Sequence[str] = (OUTPUT,), teacher: Sequence[str] = (OUTPUT,), io: str = "output",
        layout: str | None = None, prefix: int = 0, grid: Grid = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_cut("KdopsLoss", layout, prefix, grid)
        self.method = None if method is None else build(method, options)
        if free := own_parameters(self.method):
            raise ValueError(
                f"KdopsLoss: {method} has trained parameters ({', '.join(list(free)[:3])}), which "
                "torchdistill's optimizer does not get from a loss: give method and options to "
                "student: auxiliary_model_wrapper: KdopsStudent, and none here"
            )
        self.paths = {"student": list(student), "teacher": list(teacher)}
        self.io, self.cut = io, (layout, prefix, grid)

    def _inputs(self, side: str, found: Mapping[str, Any]) -> Any:
        paths = self.paths[side]
        if paths == [OUTPUT]:
            return logits_of(found[OUTPUT]["output"])
        return [
            laid_out(f"KdopsLoss: the {side} at {path!r}", first_tensor(x), *self.cut)
            for path in paths
            for x in [found[path][self.io]]
        ]

    def forward(
        self, student_io_dict: Mapping[str, Any], teacher_io_dict: Mapping[str, Any],
        targets: Any = None, *_: Any, **__: Any,
    ) -> Tensor:  # fmt: skip
        method = self.method or student_io_dict.get(HELD, {}).get("method")
        if method is None:
            raise ValueError("KdopsLoss: no method here, and the student is no KdopsStudent")
        pair = self._inputs("student", student_io_dict), self._inputs("teacher", teacher_io_dict)
        needed = getattr(method, "batch_options", None)
        options = {} if needed is None else needed({"target": targets}.get)
        loss: Tensor = method(*pair, **options)
        return loss


@register_auxiliary_model_wrapper(key="KdopsStudent")
class KdopsStudent(AuxiliaryModelWrapper):
    """The student with a method whose parameters are trained and saved with it.

    kwargs: method, options. Layers of the student are then student_model.NAME.
    """

    def __init__(
        self, student_model: nn.Module, method: str, options: Mapping[str, Any] | None = None,
        device: Any = None, device_ids: Any = None, distributed: bool = False, **_: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.student_model = wrap_if_distributed(student_model, device, device_ids, distributed)
        self.method = build(method, options).to(device)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.student_model(*args, **kwargs)

    def secondary_forward(self, io_dict: dict[str, Any]) -> None:
        """torchdistill's step between the student's pass and the loss."""
        io_dict[HELD] = {"method": self.method}
