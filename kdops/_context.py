"""What a thread or an asyncio task has said about backends: its own, and visible to torch.compile.

Context variables hold it. torch.compile can trace no ContextVar, but it guards an attribute of a
module by asking for it again before every call, in the calling context; hence `__getattr__` below,
which traced code reads. Eager code asks the variables themselves, which is quicker.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

Problem = tuple[str, tuple[object, ...]]  # op, (device type, dtype, *sizes)


class Named(Protocol):
    """An open block that forces the backend `name`."""

    name: str


forced: ContextVar[str | None] = ContextVar("kdops_forced_backend", default=None)
"""The backend of the innermost open block, or None."""

_blocks: ContextVar[tuple[Named, ...]] = ContextVar("kdops_blocks", default=())

recorded: ContextVar[list[Problem] | None] = ContextVar("kdops_recorded", default=None)
"""Where `explain` collects the problems of the function it runs."""


def enter(block: Named) -> None:
    _set((*_blocks.get(), block))


def leave(block: Named) -> None:
    """Ends this block's innermost entry: blocks may end in any order and nest in themselves."""
    blocks = _blocks.get()
    for i in reversed(range(len(blocks))):
        if blocks[i] is block:
            return _set(blocks[:i] + blocks[i + 1 :])


def _set(blocks: tuple[Named, ...]) -> None:
    _blocks.set(blocks)
    forced.set(blocks[-1].name if blocks else None)


def __getattr__(name: str) -> Any:
    if name == "forced_now":
        return forced.get()
    if name == "recorded_now":
        return recorded.get()
    raise AttributeError(f"module {__name__} has no attribute {name}")
