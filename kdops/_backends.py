"""The one place where a backend is chosen.

Every op registers a predicate per backend. A predicate looks only at device type, dtype and sizes,
so that the choice is a constant of a traced graph, and returns None (can run) or its reason as a
sentence. The same sentence is shown by `explain` and raised when that backend was forced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from kdops import _context, _library

NAMES = ("native", "triton", "reference")
Predicate = Callable[..., "str | None"]  # (device type, dtype, *sizes)
Route = Callable[..., "str | None"]  # (backend, device type, dtype, *sizes): how it computes


@dataclass(frozen=True)
class _Ladder:
    """The backends of one op in the order of preference, and sizes typical of its use."""

    predicates: dict[str, Predicate]
    typical_sizes: tuple[int, ...]
    route: Route


_ladders: dict[str, _Ladder] = {}

# Asked at every call, so that looking them up counts.
_is_compiling = torch.compiler.is_compiling
_forced_here = _context.forced.get
_recorded_here = _context.recorded.get


def _from_environment() -> str | None:
    name = os.environ.get("KDOPS_BACKEND") or None
    if name is not None and name not in NAMES:
        raise ValueError(f"KDOPS_BACKEND: expected one of {', '.join(NAMES)}, got {name!r}")
    return name


_of_process: str | None = _from_environment()
_traced: str | None = None  # inside a `with kdops.backend(...)` that torch.compile traces


def forced() -> str | None:
    """The backend that is forced here: in this thread, asyncio task or trace."""
    here = _context.forced_now if _is_compiling() else _forced_here()
    return _traced or here or _of_process


def register(
    op: str,
    *,
    native: Predicate | None = None,
    triton: Predicate | None = None,
    typical_sizes: Sequence[int] = (),
    route: Route = lambda *problem: None,
) -> None:
    """Tells what `op` has. The reference is always there and always last.

    `route` names the algorithm where a backend has several, for `explain`.
    """
    given = {"native": native, "triton": triton}
    predicates = {name: p for name, p in given.items() if p is not None}
    _ladders[op] = _Ladder(predicates, tuple(typical_sizes), route)
    _remembered.cache_clear()


def choose(op: str, device: str, dtype: torch.dtype, *sizes: int) -> str:
    """The backend that runs `op` for this problem; ValueError if a forced one cannot."""
    recorded = _context.recorded_now if _is_compiling() else _recorded_here()
    if recorded is not None:
        recorded.append((op, (device, dtype, *sizes)))
    if name := forced():
        if reason := obstacle(op, name, device, dtype, *sizes):
            raise ValueError(f"{op}: backend {name!r} was asked for, but {reason}")
        return name
    return _first_able(op, device, dtype, *sizes)


def choose_for(op: str, x: Tensor, *sizes: int) -> str:
    """`choose` by a tensor's device and dtype, for a call that must be cheap: it remembers."""
    device = "cpu" if x.is_cpu else x.device.type  # a device's `type` is slow to ask for
    if not _is_compiling() and forced() is None and _recorded_here() is None:
        try:
            return _remembered(op, device, x.dtype, *sizes)
        except TypeError:  # sizes that are symbols, as in a traced graph, cannot be remembered
            pass
    return choose(op, device, x.dtype, *sizes)


def _first_able(op: str, device: str, dtype: torch.dtype, *sizes: int) -> str:
    for name, obstacle_of in _ladders[op].predicates.items():
        if obstacle_of(device, dtype, *sizes) is None:
            return name
    _library.warn_once_if_missing()
    return "reference"


_remembered = lru_cache(maxsize=1024)(_first_able)


def obstacle(op: str, name: str, device: str, dtype: torch.dtype, *sizes: int) -> str | None:
    """Why backend `name` cannot run this problem, or None."""
    if name == "reference":
        return None
    predicate = _ladders[op].predicates.get(name)
    if predicate is None:
        return f"{op} has no {name} kernel"
    return predicate(device, dtype, *sizes)


# ---- reasons that many predicates share ---------------------------------------------------------


def native_obstacle(device: str, dtype: torch.dtype, dtypes: Sequence[torch.dtype]) -> str | None:
    """Binary, device and dtype, for an op that has C++ kernels on the CPU and on CUDA."""
    if _library.missing:
        return _library.missing
    if device not in ("cpu", "cuda"):
        return f"there are kernels for cpu and cuda, not for {device}"
    if device == "cuda" and not _library.has_cuda_kernels():
        return "this install was compiled without CUDA kernels"
    if device == "cuda" and (unserved := _library.unserved_gpu()):
        return unserved
    if dtype not in dtypes:
        return f"the kernels take {_names(dtypes)}, not {_names([dtype])}"
    return None


def triton_obstacle(device: str, dtype: torch.dtype, dtypes: Sequence[torch.dtype]) -> str | None:
    """Device, Triton's presence and dtype."""
    if _library.missing:
        return _library.missing  # the schemas live in the binary
    if device != "cuda":
        return f"Triton kernels run on cuda, not on {device}"
    if find_spec("triton") is None:
        return "Triton is not installed"
    if dtype not in dtypes:
        return f"the kernels take {_names(dtypes)}, not {_names([dtype])}"
    return None


def triton_launcher(module: str, name: str) -> Callable[..., Any]:
    """The launcher `name` of a module of Triton kernels, which is imported at the first call.

    The kernels run on the device of the first argument, which need not be the current one.
    """

    def launch(*arguments: Any) -> Any:
        with torch.cuda.device_of(arguments[0]):
            return getattr(import_module(module), name)(*arguments)

    return launch


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(str(d).removeprefix("torch.") for d in dtypes)


# ---- what users call ----------------------------------------------------------------------------


class backend:
    """Forces a backend inside a `with` block; a problem it cannot run raises ValueError.

    It counts for the thread or the asyncio task that enters it. A compiled function is compiled
    again for a backend that it has not seen.

    >>> with kdops.backend("reference"):
    ...     kdops.gram(x)
    """

    def __init__(self, name: str) -> None:
        if name not in NAMES:
            raise ValueError(f"backend: expected one of {', '.join(NAMES)}, got {name!r}")
        self.name = name

    def __enter__(self) -> None:
        global _traced
        if _is_compiling():
            self.before, _traced = _traced, self.name
        else:
            _context.enter(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _traced
        if _is_compiling():
            _traced = self.before
        else:
            _context.leave(self)


def ladder_lines(op: str, *problem: object) -> list[str]:
    """One line per backend for a problem: which one serves, why the ones before it do not."""
    lines, chosen = [], None
    for name in (*_ladders[op].predicates, "reference"):
        reason = obstacle(op, name, *problem)  # type: ignore[arg-type]
        if reason is None and chosen is None:
            chosen = name
            route = _ladders[op].route(name, *problem)
            lines.append(f"  {name:<9} serves" + (f": {route}" if route else ""))
        else:
            lines.append(f"  {name:<9} {'no: ' + reason if reason else 'could run'}")
    return lines


def explain(function: Callable[..., object], *args: object, **kwargs: object) -> None:
    """Runs `function(*args, **kwargs)` once and prints, for every op inside, its backends.

    For each backend: whether it serves this call, and if not, why.

    >>> kdops.explain(kdops.gram, torch.randn(8, 16, 32, 32))
    """
    seen: list[_context.Problem] = []
    token = _context.recorded.set(seen)
    try:
        function(*args, **kwargs)
    finally:
        _context.recorded.reset(token)
    for op, (device, dtype, *sizes) in dict.fromkeys(seen):
        print(f"{op} on {device}, {str(dtype).removeprefix('torch.')}, sizes {tuple(sizes)}:")
        print("\n".join(ladder_lines(op, device, dtype, *sizes)))
    if not seen:
        print(f"{getattr(function, '__name__', function)} called no kdops op")


def registered_ops() -> dict[str, tuple[int, ...]]:
    """Every op that has a ladder, with sizes typical of its use (for `python -m kdops info`)."""
    return {name: ladder.typical_sizes for name, ladder in sorted(_ladders.items())}
