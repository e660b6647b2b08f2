"""What the decompositions accept, and the sentences for what they do not.

Code written for torch.linalg may pass its options: the value that we implement is accepted, any
other one gets a sentence that says what to do instead.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from kdops import _check

# option -> the value that is offered, and what to do for another one
_OFFERED: dict[str, tuple[object, str]] = {
    "full_matrices": (False, "torch.linalg.svd completes the vectors to a basis"),
    "driver": (None, "the backend decides (kdops.explain shows it); torch.linalg has drivers"),
    "out": (None, "results are new tensors; copy them, destination.copy_(result)"),
    "UPLO": ("L", "the lower triangle is read; pass A.mT for the upper one"),
    "side": ("right", "for A = K U transpose the factors of A.mT: K is its H, U its U.mT"),
}


def only(op: str, **options: object) -> None:
    """Every option has the value that is offered."""
    for name, value in options.items():
        offered, advice = _OFFERED[name]
        plain = isinstance(value, (str, int))
        if not (value == offered if plain else value is offered):
            found = repr(value) if plain else _check.describe(value)
            raise ValueError(f"{op}: expected {name}={offered!r}, got {found}: {advice}")


def matrix_shape(op: str, A: object, expected: str = "[..., m, n]") -> tuple[int, int]:
    """m and n of a batch of matrices, or an error."""
    sizes = _check.tensor(op, "A", A, ": torch.linalg decomposes complex matrices").shape
    if len(sizes) < 2:
        raise ValueError(f"{op}: expected A of shape {expected}, got {_check.describe(A)}")
    return sizes[-2], sizes[-1]


def count(op: str, k: object, r: int) -> int:
    """k as an int in 1..r; it may be whatever indexes a list, but no bool."""
    if type(k) is not int:
        k = _index(op, k)
    if not 1 <= k <= r:
        raise ValueError(f"{op}: expected 1 <= k <= min(m, n) = {r}, got k = {k}")
    return k


def _index(op: str, k: object) -> int:
    found, hint = type(k).__name__, ""
    if isinstance(k, Tensor):
        found = f"a tensor of shape {list(k.shape)} and {k.dtype}"
        number = k.dim() == 0 and k.dtype != torch.bool
    else:
        number = not isinstance(k, bool)
        hint = "" if number else "; full_matrices goes by its name"
    if number and hasattr(k, "__index__"):
        try:
            return operator.index(k)
        except TypeError:  # a tensor of floats, an array
            pass
    raise TypeError(f"{op}: expected k to be an int, got {found}{hint}")
