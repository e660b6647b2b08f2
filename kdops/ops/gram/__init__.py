"""Gram and FSP matrices of feature maps, and the losses between them."""

from __future__ import annotations

from torch import Tensor

from kdops import _check, _inputs
from kdops._maths import of_one_size
from kdops.ops.gram import registration
from kdops.ops.gram.losses import fsp_loss, nst_loss

__all__ = ["fsp_loss", "fsp_matrix", "gram", "nst_loss"]


def gram(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Gram matrix of feature maps over their positions: X Yᵀ / prod(S).

    Args:
        x: (B, C1, *S), S of one to three spatial dimensions.
        y: (B, C2, *S); None means y = x, and only one half is computed.

    Returns:
        (B, C1, C2) in the dtype of the inputs. float16 and bfloat16 accumulate in float32; under
        autocast the op runs in float32. Channels_last maps are read where they lie. No positions
        at all (an empty S) give zeros.

    Cost: 2 B C1 C2 prod(S) FLOP forward (half for y = None), twice that backward; reads each map
    once. Differentiable to any order.

    >>> features = torch.randn(128, 16, 32, 32, requires_grad=True)
    >>> gram(features).shape
    torch.Size([128, 16, 16])
    """
    _check_maps("gram", "x", x, "y", y)
    return _gram(x, y)


def fsp_matrix(f1: Tensor, f2: Tensor, *, pool: str = "max") -> Tensor:
    """FSP matrix between two layers ("flow of solution procedure"): F1ᵀ F2 / (h w) per sample.

    The map with more positions is pooled adaptively to the spatial size of the other first, in
    each dimension by itself.

    Args:
        f1: (B, C1, *S1), one to three spatial dimensions.
        f2: (B, C2, *S2), as many spatial dimensions.
        pool: "max" (the paper) or "avg".

    Returns:
        (B, C1, C2) in the dtype of the inputs.

    >>> fsp_matrix(torch.randn(8, 16, 32, 32), torch.randn(8, 32, 16, 16)).shape
    torch.Size([8, 16, 32])
    """
    _check.option("fsp_matrix", "pool", pool, ("max", "avg"))
    _check_maps("fsp_matrix", "f1", f1, "f2", f2, same_positions=False)
    f1, f2 = _inputs.outside_autocast(f1, f2)  # before pooling: an average is arithmetic too
    return _gram(*of_one_size(f1, f2, pool))


def _gram(x: Tensor, y: Tensor | None) -> Tensor:
    """gram on checked arguments."""
    if y is None:
        (x,) = _inputs.outside_autocast(x)
    else:
        x, y = _inputs.outside_autocast(x, y)
    return registration.gram(x, y)


def _check_maps(
    op: str, x_name: str, x: Tensor, y_name: str, y: Tensor | None, *, same_positions: bool = True
) -> None:
    _check.tensor(op, x_name, x)
    _check.rank(op, x_name, x, "[B, C, *S] with 1 to 3 spatial dimensions", 3, 5)
    if y is None:
        return
    _check.tensor(op, y_name, y)
    _check.same_kind(op, **{x_name: x, y_name: y})
    _check.rank(op, y_name, y, "[B, C, *S] like the first argument", x.dim())
    (batch, _, *positions), (other_batch, _, *other_positions) = x.shape, y.shape
    _check.same_size(op, "batch size", **{x_name: batch, y_name: other_batch})
    if same_positions and positions != other_positions:
        raise ValueError(
            f"{op}: expected {x_name} and {y_name} with the same spatial shape, got "
            f"{positions} and {other_positions}; fsp_matrix pools the larger map"
        )
