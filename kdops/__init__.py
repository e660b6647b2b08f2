"""kdops: fast, exact, NaN-free operators for knowledge distillation in PyTorch."""

__version__ = "0.1.0"

from kdops._backends import backend, explain
from kdops._library import build_info
from kdops.ops.gram import fsp_matrix, gram

__all__ = [
    "backend",
    "build_info",
    "explain",
    "fsp_matrix",
    "gram",
]
