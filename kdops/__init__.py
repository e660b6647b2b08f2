"""kdops: fast, exact, NaN-free operators for knowledge distillation in PyTorch."""

from importlib import import_module
from inspect import isfunction

from kdops._backends import backend, explain
from kdops._library import VERSION, build_info
from kdops._script import refuse_scripting
from kdops.features import FeatureTap
from kdops.ops.align import align_singular_vectors
from kdops.ops.attention import attention_loss, attention_map
from kdops.ops.gram import fsp_loss, fsp_matrix, gram, nst_loss
from kdops.ops.rbf import rbf_affinity, rbf_affinity_loss, svd_rbf_loss
from kdops.ops.relation import (
    pairwise_angle,
    pairwise_cosine,
    pairwise_distance,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_loss,
)
from kdops.ops.similarity_kl import similarity_kl_loss
from kdops.ops.svd import (
    batched_eigh,
    batched_nuclear_norm,
    batched_polar,
    batched_svd,
    batched_svdvals,
)
from kdops.ops.token_gram import cka_loss, gram_anchoring_loss

__version__ = VERSION

__all__ = [
    "FeatureTap",
    "align_singular_vectors",
    "attention_loss",
    "attention_map",
    "backend",
    "batched_eigh",
    "batched_nuclear_norm",
    "batched_polar",
    "batched_svd",
    "batched_svdvals",
    "build_info",
    "cka_loss",
    "explain",
    "fsp_loss",
    "fsp_matrix",
    "gram",
    "gram_anchoring_loss",
    "nst_loss",
    "pairwise_angle",
    "pairwise_cosine",
    "pairwise_distance",
    "rbf_affinity",
    "rbf_affinity_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "similarity_kl_loss",
    "similarity_loss",
    "svd_rbf_loss",
]

refuse_scripting(f for name, f in globals().items() if name in __all__ and isfunction(f))

_PARTS = ("distillers", "distributed", "features", "training")  # imported when asked for


def __getattr__(name: str) -> object:
    if name in _PARTS:
        return import_module(f"kdops.{name}")
    raise AttributeError(f"module 'kdops' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS})
