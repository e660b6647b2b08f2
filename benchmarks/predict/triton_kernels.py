"""The Triton kernels as their launchers compile them: what tests compile ahead of time, and what
ahead.py describes. A kernel that is missing here fails tests/package/test_house.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NUMBERS = ("fp32", "fp64")
ARCHITECTURES = (75, 80, 90, 100, 120)


@dataclass(frozen=True)
class Kernel:
    """One instance: `pointers` are the names of pointers, to the kernels' number unless they say
    "name:type"; `constants` are constants and launch options of its own."""

    name: str
    pointers: str
    constants: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Module:
    """`constants` are those of all kernels that have them; `spills` {(number, kernel, arch): bytes
    a thread} that ptxas spills: a few registers too many in a largest kernel."""

    name: str
    kernels: tuple[Kernel, ...]
    constants: dict[str, Any] = field(default_factory=dict)
    spills: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def constants_of(self, number: str) -> dict[str, Any]:
        """TERMS, of a series, is given for each number."""
        return {k: v[number] if isinstance(v, dict) else v for k, v in self.constants.items()}


_BY_ROW, _BY_COLUMN = {"position_stride": 1}, {"channel_stride": 1}
_MAP, _MAP_BACK = ("map_kernel", "x p out top unit"), ("gradient_kernel", "grad unit x p gx")
_ONCE, _TOP, _AGAIN = (
    {"TOP": top, "AGAIN": again} for top, again in ((False, False), (True, False), (False, True))
)
_RBF = {"TERMS": {"fp32": 10, "fp64": 18}, "SAME": True, "GRADIENT": True}
_BANDED = "s s_given s_norms s_sizes t t_given t_norms gamma losses slopes gradient"
_PAIR_BACK = "grad out x x_given x_sizes y y_given y_sizes unit result"
_ANGLES = "grad squares:fp64 rests:fp64 weights:fp64"
_SIDES = "own_s own_t own_bias own_logs other_s other_t other_bias other_logs"
_KL_SUMS = "x y bias rate chosen:i32 tops sums"
_KL_PULL = f"{_SIDES} rates chosen:i32 losses totals pulled"
_PKT = "x y biases factors padding losses shares totals pulled"
_ANCHORING = "x y chosen:i32 squares entries pull"

MODULES = (
    Module(
        "kdops.ops.attention.triton",
        (
            Kernel(*_MAP, {"EXPONENT": 0, "LARGEST": False, **_TOP, **_BY_ROW}),
            Kernel(*_MAP, {"EXPONENT": 3, "LARGEST": True, **_ONCE, **_BY_COLUMN}),
            Kernel(*_MAP, {"EXPONENT": 4, "LARGEST": False, **_AGAIN}),
            Kernel(
                *_MAP_BACK,
                {"EXPONENT": 0, "LARGEST": False, "UNIT": False, **_BY_COLUMN, "gx_channel": 1},
            ),
            Kernel(
                *_MAP_BACK,
                {"EXPONENT": 1, "LARGEST": True, "UNIT": True, **_BY_ROW, "gx_position": 1},
            ),
            Kernel(*_MAP_BACK, {"EXPONENT": 2, "LARGEST": False, "UNIT": True, "channels": 1}),
        ),
    ),
    Module(
        "kdops.ops.rbf.triton",
        (
            Kernel("affinity_kernel", "x x_given x_norms y y_given y_norms gamma out"),
            Kernel("slope_kernel", "grad k x x_given x_norms y y_given y_norms sums"),
            Kernel(
                "pull_kernel",
                "grad k x x_given x_sizes y y_given y_sizes gamma out",
                {"EPS": 1e-7},
            ),
        ),
        _RBF,
    ),
    Module(
        "kdops.ops.rbf.triton_loss",
        (Kernel("loss_kernel", _BANDED),),
        _RBF,
        {("fp64", "loss_kernel", 100): 32, ("fp64", "loss_kernel", 120): 16},
    ),
    Module(
        "kdops.ops.relation.triton",
        (
            Kernel("pairs_kernel", "x x_given x_norms y y_given y_norms unit out"),
            Kernel("pull_kernel", _PAIR_BACK),
        ),
        {"KIND": 1, "SAME": True},
        {("fp32", "pull_kernel", 100): 8},
    ),
    Module(
        "kdops.ops.relation.triton_similarity",
        (Kernel("similarity_kernel", "student teacher factor losses"),),
        {"GRADIENT": True, "BLOCK": 1024},
    ),
    Module(
        "kdops.ops.relation.triton_angle",
        (
            Kernel(
                "long_squares_kernel",
                "x:fp64 squares:fp64 rests:fp64",
                {"enable_fp_fusion": False},
            ),
            Kernel("angle_kernel", "squares:fp64 rests:fp64 out"),
            Kernel("weights_kernel", _ANGLES, {"stride_k": 1}),
            Kernel("weights_kernel", _ANGLES, {"stride_j": 1, "parts": 1}),
            Kernel("weights_kernel", _ANGLES, {"n": 1, "parts": 1}),
        ),
    ),
    Module(
        "kdops.ops.similarity_kl.triton",
        (
            Kernel("statistics_kernel", _KL_SUMS, {"WITHOUT_SELF": True}),
            Kernel(
                "pull_kernel",
                _KL_PULL,
                {"ROWS": True, "KEYS": True, "WITHOUT_SELF": True, "GRADIENT": True},
            ),
            Kernel(
                "pull_kernel",
                _KL_PULL,
                {"ROWS": False, "KEYS": True, "WITHOUT_SELF": False, "GRADIENT": True},
            ),
            Kernel(
                "pull_kernel",
                _KL_PULL,
                {"ROWS": True, "KEYS": False, "WITHOUT_SELF": False, "GRADIENT": False},
            ),
        ),
        spills={
            ("fp32", "pull_kernel", 80): 16,
            ("fp64", "pull_kernel", 90): 16,
            ("fp64", "pull_kernel", 100): 24,
            ("fp64", "pull_kernel", 120): 16,
        },
    ),
    Module(
        "kdops.ops.similarity_kl.triton_pkt",
        (
            Kernel("pkt_kernel", _PKT, {"GRADIENT": True}),
            Kernel("pkt_kernel", _PKT, {"GRADIENT": False}),
        ),
        spills={
            ("fp32", "pkt_kernel", 90): 8,
            **{("fp64", "pkt_kernel", arch): 24 for arch in (80, 90, 100, 120)},
        },
    ),
    Module(
        "kdops.ops.token_gram.triton",
        (
            Kernel("anchoring_kernel", _ANCHORING, {"NEGATIVES": 0, "GRADIENT": True}),
            Kernel("anchoring_kernel", _ANCHORING, {"NEGATIVES": 1, "GRADIENT": True}),
            Kernel("anchoring_kernel", _ANCHORING, {"NEGATIVES": 2, "GRADIENT": False}),
        ),
    ),
    Module(
        "kdops.ops.token_gram.triton_cka",
        (
            Kernel("kernels_kernel", "x y k_s k_t squares"),
            Kernel("differences_kernel", "k_s k_t own other squares"),
            Kernel("pull_kernel", "x k_s k_t own other loss pull"),
        ),
    ),
)
