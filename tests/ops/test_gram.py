"""Gram matrices of maps as they lie: the kernels find the positions by their strides."""

import pytest
import torch

import kdops
from kdops._library import missing
from kdops.testing import relative_error

LAYOUTS = {
    "contiguous": lambda x: x.clone(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second column": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "a window": lambda x: torch.nn.functional.pad(x, (1, 2, 1, 2))[..., 1:-2, 1:-2],
    "height and width swapped": lambda x: x.mT.contiguous().mT,
    "one map for the batch": lambda x: x[:1].expand_as(x),
    "one row": lambda x: x.flatten(2).unsqueeze(2),
    "one column": lambda x: x.flatten(2).unsqueeze(3),
}


def _product(x, y):
    return torch.einsum("bil,bjl->bij", x.flatten(2), y.flatten(2)) / x[0, 0].numel()


def _value_and_gradients(function, *maps):
    maps = [m.detach().requires_grad_() for m in maps]
    value = function(*maps)
    weights = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).reshape(value.shape)
    return value, *torch.autograd.grad(value, maps, weights)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gram_of_maps_as_they_lie(layout):
    maps = [torch.randn(3, c, 6, 5, dtype=torch.float64) for c in (4, 7)]
    x, y = (LAYOUTS[layout](m) for m in maps)
    ours = _value_and_gradients(kdops.gram, x, y)
    for a, b in zip(ours, _value_and_gradients(_product, x, y), strict=True):
        assert a.shape == b.shape
        assert relative_error(a, b) < 1e-13


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fsp_loss_of_maps_as_they_lie(layout):
    s1, s2, t1, t2 = (
        LAYOUTS[layout](torch.randn(3, c, 6, 5, dtype=torch.float64)) for c in (4, 7, 4, 7)
    )

    def ours(a, b):
        return kdops.fsp_loss((a, b), (t1, t2))

    def plain(a, b):
        return (_product(a, b) - _product(t1, t2)).square().sum() / (2 * len(a))

    results = (_value_and_gradients(f, s1, s2) for f in (ours, plain))
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape
        assert relative_error(a, b) < 1e-13


INNER = {
    "tokens": lambda x: x.mT.contiguous().mT,
    "tokens behind a prefix": lambda x: torch.cat([x[..., :1], x], 2).mT.contiguous()[:, 1:].mT,
    "a grid of tokens": lambda x: x.mT.contiguous().mT.unflatten(2, (2, -1)),
}
SIZES = {"long": (3, 4, 60), "short": (9, 7, 2)}  # by channels, by positions
LOSSES = {
    "paper": lambda a, b, t: kdops.fsp_loss((a, b), t),
    "columns": lambda a, b, t: kdops.fsp_loss((a, b), t, variant="columns"),
    "nst": lambda a, b, t: kdops.nst_loss(a, t[0]) + kdops.nst_loss(b, t[1]),
}


@pytest.mark.skipif(missing is not None, reason=str(missing))
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", INNER)
def test_the_gradient_of_tokens_lies_as_they_do(layout, size, loss):
    """And has the numbers of that of contiguous maps."""
    c1, c2, length = SIZES[size]
    maps = [torch.randn(2, c, length, dtype=torch.float64) for c in (c1, c2) * 2]
    plain = [m.unflatten(2, (2, -1)) if layout == "a grid of tokens" else m for m in maps]
    found = []
    for a, b, *teacher in (plain, [INNER[layout](m) for m in maps]):
        found.append(_value_and_gradients(lambda x, y, t=teacher: LOSSES[loss](x, y, t), a, b))
    for ours, theirs in zip(*found, strict=True):
        assert relative_error(ours, theirs) < 1e-12
    for gradient in found[1][1:]:
        assert gradient.movedim(1, -1).is_contiguous()
