"""The table of docs/methods.md: what every method takes, from what its class says."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from kdops.distillers._base import Distiller
from kdops.distillers._prepared import PreparedDistiller

INPUTS = ("embedding", "map", "tokens", "logits", "pairs")
CONSTANTS = ("alpha", "beta", "scale", "lam", "weight", "distance_weight", "angle_weight")
HEAD = (
    "method", *INPUTS, "mask", "channels", "positions", "prepares", "inside", "weight", "paper"
)  # fmt: skip


def markdown(methods: Iterable[type[Distiller]]) -> str:
    """A row a method, in the order given."""
    lines = [HEAD, ["---"] * len(HEAD), *map(_row, methods)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(method: type[Distiller]) -> list[str]:
    takes = ["yes" if kind in method.takes else "" for kind in INPUTS]
    mask = {"zeros": "yes", "valid": "yes"}.get(method.padding, "")
    prepares = "yes" if issubclass(method, PreparedDistiller) else ""
    given = inspect.signature(method).parameters
    numbers = {name: given[name].default for name in CONSTANTS if name in given}
    inside = [f"{name} = {x:g}" for name, x in numbers.items() if x is not None]
    rest = [prepares, ", ".join(inside), f"{method.default_weight:g}", method.paper]
    return [method.__name__, *takes, mask, method.channels_rule, method.positions_rule, *rest]
