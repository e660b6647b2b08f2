"""Any combination of methods, with named terms that can be logged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdops.distillers._base import Distiller
from kdops.distillers._masks import Mask
from kdops.distillers._prepared import PreparedDistiller


class WeightedSum(Distiller):
    """L = Σ_name w_name · method_name(student_name, teacher_name).

    >>> both = WeightedSum({"kd": SoftTarget(), "rkd": RKD()}, {"kd": 0.9, "rkd": 1.0})
    >>> loss = both({"kd": z_s, "rkd": x_s}, {"kd": z_t, "rkd": x_t}, kd={"target": y})
    >>> both.values["rkd"]       # the unweighted term of the last call, detached

    methods: name -> method. coefficients: name -> w, 1 for names left out. student and teacher:
    mappings with one entry per name, or the same features for all terms. Keyword arguments named
    after a term are passed on to it; mask goes to every term that is a distiller. layout: that of
    the terms which have none.
    """

    takes = ("embedding", "map", "tokens", "logits", "pairs")
    channels_rule, positions_rule = "as its terms", "as its terms"

    def __init__(
        self,
        methods: Mapping[str, nn.Module],
        coefficients: Mapping[str, float] | None = None,
        *,
        layout: str | None = None,
    ) -> None:
        super().__init__(layout=layout)
        given = dict(coefficients or {})
        unknown = sorted(set(given) - set(methods))
        if unknown or not methods:
            raise ValueError(f"WeightedSum: terms {sorted(methods)}, coefficients for {unknown}")
        self.methods = nn.ModuleDict(methods)
        self.coefficients = {name: float(given.get(name, 1.0)) for name in methods}
        self.values: dict[str, Tensor] = {}
        for method in methods.values():
            if isinstance(method, Distiller) and method.layout is None:
                method.layout = layout

    def _inputs(self, side: str, features: Any) -> dict[str, Any]:
        if not isinstance(features, Mapping):
            return dict.fromkeys(self.methods, features)
        missing = sorted(set(self.methods) - set(features))
        if missing:
            raise ValueError(
                f"WeightedSum: the {side} mapping has {sorted(features)} and lacks {missing}"
            )
        return dict(features)

    def inputs_from(self, features: Any, logits: Tensor | None) -> Any:
        """By term: logits for those of logits, else features; one for all where they agree."""
        plain = logits if features is None else features
        found = {
            name: method.inputs_from(features, logits) if isinstance(method, Distiller) else plain
            for name, method in self.methods.items()
        }
        return plain if all(x is plain for x in found.values()) else found

    def batch_options(self, part: Callable[[str], Any]) -> dict[str, Any]:
        """By term, for those that need more than features."""
        terms = [(k, m) for k, m in self.methods.items() if isinstance(m, Distiller)]
        found = {name: method.batch_options(part) for name, method in terms}
        return {name: options for name, options in found.items() if options}

    def prepare(
        self,
        batches: Any,
        *,
        epochs: int | None = None,
        lr: float = 1e-3,
        progress: bool = True,
    ) -> dict[str, Any]:
        """Every term's prepare(), with the batches of its name, or the same for all (a stream or a
        list: they are walked once per term); epochs=None: as many as each term's default."""
        given = batches if isinstance(batches, Mapping) else dict.fromkeys(self.methods, batches)
        options: dict[str, Any] = {"lr": lr, "progress": progress}
        options |= {} if epochs is None else {"epochs": epochs}
        terms = [(k, m) for k, m in self.methods.items() if isinstance(m, PreparedDistiller)]
        return {name: method.prepare(given[name], **options) for name, method in terms}

    def forward(
        self, student: Any, teacher: Any, *, mask: Mask = None, **options: Mapping[str, Any]
    ) -> Tensor:
        unknown = sorted(set(options) - set(self.methods))
        if unknown:
            raise ValueError(f"WeightedSum: options for unknown terms {unknown}")
        s, t = self._inputs("student", student), self._inputs("teacher", teacher)
        terms = {}
        for name, method in self.methods.items():
            given = {} if mask is None or not isinstance(method, Distiller) else {"mask": mask}
            terms[name] = method(s[name], t[name], **{**given, **options.get(name, {})})
        self.values = {name: value.detach() for name, value in terms.items()}
        return torch.stack([self.coefficients[k] * v for k, v in terms.items()]).sum()
