"""TorchScript cannot compile our functions, and says so in one sentence instead of by a detail.

They are Python that checks, widens and chooses a backend around an op, with keyword-only options
and named tuples. torch.jit.trace, torch.export and torch.compile see through that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn


def refuse_scripting(functions: Iterable[Callable[..., Any]]) -> None:
    """torch.jit.script raises a TypeError where it meets one of the functions."""
    for function in functions:
        # torch asks a function for its scriptable form before it reads its source
        vars(function)["__prepare_scriptable__"] = _refusal(function.__name__)


def _refusal(name: str) -> Callable[[], NoReturn]:
    def refuse() -> NoReturn:
        raise TypeError(
            f"{name}: torch.jit.script cannot compile kdops; use torch.jit.trace, torch.export or "
            "torch.compile, or call it outside the scripted part"
        )

    return refuse
