"""What every distiller shares: levels, level weights, connectors and the messages of bad input.

Called as ``loss = method(student, teacher)``. Both arguments are one tensor or a list with one per
level: embeddings (B, D), maps (B, C, *S) with one to three dimensions, or tokens (B, N, D). Three
dimensions need their layout said, here or at the FeatureTap (kdops/_layout.py); a mask (B, N)
leaves padded tokens out (_masks.py). Behind ``pairs`` a method sees maps. The loss is 0-d, fp32 or
the student's fp64; half inputs are computed in fp32, the teacher is detached and of that type.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kdops import _inputs
from kdops._layout import as_map, carried, check_layout, is_tokens, layout_of, marked, zeroed
from kdops.distillers._masks import Mask, gathered, level_masks
from kdops.distillers._parallel import share_gradients, share_state

Levels = Tensor | Sequence[Tensor]
Pair = tuple[Tensor, Tensor]
D = TypeVar("D", bound="Distiller")
full = _inputs.widened  # half types in fp32, all else as it is


def mean(x: Tensor) -> Tensor:
    """The mean over all entries, zero for an empty tensor."""
    return x.mean() if x.numel() else x.sum()


def unit(x: Tensor, dim: int) -> Tensor:
    """x over its L2 norm along dim; a zero vector stays zero and has zero gradient."""
    largest = x.detach().abs().amax(dim, keepdim=True)
    x = x / torch.where(largest > 0, largest, torch.ones_like(largest))  # squares neither over- nor
    square = x.square().sum(dim, keepdim=True)  # underflow now
    safe = torch.where(square > 0, square, torch.ones_like(square))
    return x * torch.where(square > 0, safe.rsqrt(), torch.zeros_like(safe))


def outside_autocast(x: Tensor) -> torch.autocast:
    """Relations run in fp32, as the operators do: half types lose the small distances."""
    return torch.autocast(x.device.type, enabled=False)


def levels_of(method: str, features: Levels) -> list[Tensor]:
    """One tensor is one level."""
    if isinstance(features, Tensor):
        return [features]
    if not isinstance(features, Sequence) or isinstance(features, str):
        raise ValueError(
            f"{method}: features are one tensor, or a list with one per level, got "
            f"{type(features).__name__}"
        )
    return list(features)


def shapes(*tensors: Tensor) -> str:
    """'[8, 16, 4, 4] and [8, 32, 2, 2]' for messages."""
    return " and ".join(str(list(t.shape)) for t in tensors)


def level_pairs(
    method: str, student: Levels, teacher: Levels, layout: str | None = None
) -> list[Pair]:
    """Pairs of maps; half becomes fp32; the teacher is detached, in the student's type."""
    s_levels, t_levels = levels_of(method, student), levels_of(method, teacher)
    if len(s_levels) != len(t_levels) or not s_levels:
        raise ValueError(
            f"{method}: the student has {len(s_levels)} levels and the teacher {len(t_levels)}; "
            "pass lists of equal, non-zero length"
        )
    for i, (s, t) in enumerate(zip(s_levels, t_levels, strict=True)):
        check_feature(method, i, "student", s)
        check_feature(method, i, "teacher", t)
        if s.shape[0] != t.shape[0]:
            raise ValueError(
                f"{method}: level {i}: the batches differ, student and teacher are {shapes(s, t)}; "
                "run both networks on the same images"
            )
        check_device(method, i, s, t)
    pairs = []
    for i, (s, t) in enumerate(zip(s_levels, t_levels, strict=True)):
        s = read(f"{method}: level {i}: the student", s, layout)
        pairs.append((s, constant_map(f"{method}: level {i}: the teacher", t, layout, s.dtype)))
    return pairs


def read(where: str, x: Tensor, layout: str | None, dtype: torch.dtype | None = None) -> Tensor:
    """x as a map of that dtype (None: fp32 or wider); tokens remain marked as such."""
    kind = layout_of(where, x, layout)
    x = as_map(x, kind)
    x = full(x) if dtype is None else x.to(dtype)
    return marked(x, kind) if kind == "tokens" else x


def constant_map(
    where: str, x: Tensor, layout: str | None, dtype: torch.dtype | None = None
) -> Tensor:
    """read, without the history of x."""
    x = read(where, x, layout, dtype)
    return carried(x.detach(), x)


def samples(features: Levels) -> int:
    """The size of the batch to divide by, one at least, whatever a mask did."""
    first = features if isinstance(features, Tensor) else features[0]
    return max(first.shape[0], 1)


def rows(x: Tensor) -> Tensor:
    """Every sample of x as one vector, tokens in the order in which they lie."""
    return (x.transpose(1, 2) if is_tokens(x) else x).flatten(1)


def check_device(method: str, level: int, student: Tensor, teacher: Tensor) -> None:
    if student.device != teacher.device:
        raise ValueError(
            f"{method}: level {level}: the student is on {student.device} and the teacher on "
            f"{teacher.device}"
        )


def check_feature(method: str, level: int, side: str, x: object) -> None:
    """A real tensor (B, C, *S) with channels and positions, or a ValueError."""
    if isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 2 and 0 not in x.shape[1:]:
        return
    found = f"{list(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
    raise ValueError(
        f"{method}: level {level}: the {side} must be a floating point tensor whose first "
        f"dimension is the batch and second the channels, none of them empty, got {found}"
    )


def warn_without_gradient(method: str, student: Sequence[Tensor]) -> bool:
    """Warn of a tapped student that cannot learn from the loss; whether it was done."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    layers = [getattr(x, "_kdops_layer", None) for x in student]
    if None in layers or any(x.requires_grad for x in student):
        return False
    warnings.warn(
        f"{method}: the student's features at {', '.join(map(repr, layers))} need no gradient, so "
        "the loss teaches it nothing; was its forward run under torch.no_grad, is it frozen, or is "
        "the tap on another network (a teacher, an EMA copy)? Reentrant checkpointing detaches too",
        stacklevel=7,  # the caller of a method whose forward asks for its pairs
    )
    return True


def as_list(value: int | Sequence[int]) -> list[int]:
    """One level may be given as a plain number."""
    return [value] if isinstance(value, int) else list(value)


def channel_numbers(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The two constructor arguments that most from_sample constructors infer."""
    return {
        "student_channels": [s.shape[1] for s, _ in pairs],
        "teacher_channels": [t.shape[1] for _, t in pairs],
    }


def check_positions(method: str, level: int, *maps: Tensor) -> None:
    """Maps have positions, in one to three dimensions."""
    if not all(3 <= x.ndim <= 5 for x in maps):
        raise ValueError(
            f"{method}: level {level}: expected maps (B, C, *S) with one to three spatial "
            f"dimensions, such as (B, C, H, W), got {shapes(*maps)}; tap a layer before pooling"
        )


class Distiller(nn.Module):
    """Base of all methods: pairing of levels, weights per level, construction from a sample.

    weights: one factor per term of the sum over levels (or level pairs); None means 1 for all.
    layout: what features of three dimensions are, "tokens" (B, N, D) or "channels" (B, C, L),
    where the FeatureTap did not say it. channels: (student's, teacher's) per level that the method
    was built for; None for any. synchronise: the torch.distributed group whose processes share the
    method's own parameters, "world", or None for none (see kdops.distributed).
    """

    channels: list[tuple[int, int]] | None = None
    synchronise: Any = "world"

    # For kdops.distillers.table(); padding is read as "zeros", or the "valid" tokens are gathered.
    takes: tuple[str, ...] = ("embedding", "map", "tokens")
    padding: str = "zeros"
    channels_rule: str = "any"
    positions_rule: str = "any"
    paper: str = ""
    default_weight: float = 1.0
    needs: tuple[str, ...] = ()  # what it reads of a batch besides: "target", "index" (of a sample)

    def __init__(
        self, *, weights: Sequence[float] | None = None, layout: str | None = None
    ) -> None:
        super().__init__()
        self.weights = None if weights is None else tuple(float(w) for w in weights)
        self.layout = check_layout(self.name, layout)
        self._warned = self._shared = False
        self.register_forward_pre_hook(share_state)
        self.register_forward_hook(share_gradients)

    @property
    def name(self) -> str:
        return type(self).__name__

    @classmethod
    def from_sample(cls: type[D], student: Levels, teacher: Levels, **options: Any) -> D:
        """Build the method from one batch of features: channels, sizes, dtype and device."""
        pairs = level_pairs(cls.__name__, student, teacher, options.get("layout"))
        like = pairs[0][0]
        method = cls(**{**cls._numbers(pairs), **options})
        return method.to(device=like.device, dtype=like.dtype)

    @classmethod
    def _numbers(cls, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Constructor arguments that a sample determines: channels, where the method has any."""
        return channel_numbers(pairs) if "student_channels" in signature(cls).parameters else {}

    def inputs_from(self, features: Any, logits: Tensor | None) -> Any:
        """Which of a network's features (None without taps) and logits fit gives to the method."""
        return logits if features is None else features

    def batch_options(self, part: Callable[[str], Any]) -> dict[str, Any]:
        """What fit passes besides features: part(name) of a batch for all that it needs."""
        return {name: part(name) for name in self.needs}

    def prepare(
        self, batches: Any, *, epochs: int = 1, lr: float = 1e-3, progress: bool = True
    ) -> Any:
        """Nothing, without a preparatory phase: one call prepares any method."""
        return []

    def pairs(self, student: Levels, teacher: Levels, mask: Mask = None) -> list[Pair]:
        """Checked pairs of levels, as many and of such channels as the method was built for, and
        without padding."""
        pairs = level_pairs(self.name, student, teacher, self.layout)
        if not self._warned:
            self._warned = warn_without_gradient(self.name, levels_of(self.name, student))
        if self.channels is not None:
            self._check_channels(pairs, self.channels)
        return pairs if mask is None else self._without_padding(pairs, mask)

    def _without_padding(self, pairs: Sequence[Pair], mask: Mask) -> list[Pair]:
        if not self.padding:
            raise ValueError(
                f"{self.name}: takes no mask: its convolutions or pooling read across positions, "
                "and padding has no place among them"
            )
        hide = gathered if self.padding == "valid" else zeroed
        masks = level_masks(self.name, mask, [s for s, _ in pairs])
        for i, (m, (s, t)) in enumerate(zip(masks, pairs, strict=True)):
            if m is not None and s.shape[2:] != t.shape[2:]:
                raise ValueError(
                    f"{self.name}: level {i}: one mask for student and teacher needs equal "
                    f"positions in both, got {shapes(s, t)}"
                )
        return [(hide(s, m), hide(t, m)) for m, (s, t) in zip(masks, pairs, strict=True)]

    def _check_channels(self, pairs: Sequence[Pair], channels: Sequence[tuple[int, int]]) -> None:
        if len(pairs) != len(channels):
            raise ValueError(
                f"{self.name}: built for {len(channels)} levels, called with {len(pairs)}; "
                "use from_sample with the same layers"
            )
        for i, ((s, t), built) in enumerate(zip(pairs, channels, strict=True)):
            if (s.shape[1], t.shape[1]) != built:
                raise ValueError(
                    f"{self.name}: level {i}: built for {built[0]} student and {built[1]} teacher "
                    f"channels, got {shapes(s, t)}; use from_sample with the same layers"
                )

    def total(self, terms: Sequence[Tensor], default: Sequence[float] | None = None) -> Tensor:
        """The weighted sum of all levels' terms."""
        weights = self.weights if self.weights is not None else default
        if weights is None:
            return torch.stack(list(terms)).sum()
        if len(weights) != len(terms):
            raise ValueError(f"{self.name}: {len(weights)} weights for {len(terms)} terms")
        return torch.stack([w * term for w, term in zip(weights, terms, strict=True)]).sum()

    def check_maps(self, pairs: Sequence[Pair], least: int = 1) -> None:
        """Every level is a pair of maps (B, C, *S), and there are enough of them."""
        if len(pairs) < least:
            raise ValueError(f"{self.name}: needs at least {least} levels, got {len(pairs)}")
        for i, pair in enumerate(pairs):
            check_positions(self.name, i, *pair)


def halving(n: int) -> list[float]:
    """1 for the last level, 1/2 for the one before, 1/4, ..."""
    return [0.5 ** (n - 1 - i) for i in range(n)]
