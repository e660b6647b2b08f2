"""FitNet: regressors for every size relation, both variants."""

import pytest
import torch
from support.distiller_cases import leaf, same_loss_and_gradient
from torch import nn

import kdops.distillers as kd

SIZES = [
    ((4, 6, 6), (5, 6, 6), nn.Conv2d, (1, 1)),
    ((4, 8, 6), (5, 4, 3), nn.Conv2d, (3, 3)),
    ((4, 3, 4), (5, 6, 8), nn.ConvTranspose2d, (4, 4)),
    ((4, 7, 6), (5, 4, 5), nn.Conv2d, (4, 2)),
]


@pytest.mark.parametrize(("s_shape", "t_shape", "kind", "kernel"), SIZES)
def test_regressor(s_shape, t_shape, kind, kernel):
    s, t = leaf(3, *s_shape), leaf(3, *t_shape, seed=1)
    method = kd.FitNet(s_shape, t_shape, relu=True).double()
    layer, norm, _ = method.regressors[0]
    assert type(layer) is kind
    assert layer.kernel_size == kernel
    r = layer(s)
    mean = r.mean((0, 2, 3), keepdim=True)
    r = (r - mean) / torch.sqrt(((r - mean) ** 2).mean((0, 2, 3), keepdim=True) + norm.eps)
    difference = torch.where(r > 0, r, 0.0) - t.detach()
    inputs = [s, layer.weight]
    same_loss_and_gradient(method(s, t), (difference**2).mean(), inputs)
    method.variant = "paper"
    same_loss_and_gradient(method(s, t), 0.5 * (difference**2).sum() / 3, inputs)


def test_one_by_one_by_hand():
    s, t = leaf(2, 3, 2, 2), leaf(2, 4, 2, 2, seed=1)
    method = kd.FitNet.from_sample(s, t, batch_norm=False)
    conv = method.regressors[0][0]
    r = torch.einsum("oc,bchw->bohw", conv.weight[..., 0, 0], s) + conv.bias[:, None, None]
    same_loss_and_gradient(
        method(s, t), ((r - t.detach()) ** 2).sum() / 32, [s, *conv.parameters()]
    )


def test_messages():
    with pytest.raises(ValueError, match=r"no regressor from \[4, 3, 3\] to \[4, 7, 7\]"):
        kd.FitNet((4, 3, 3), (4, 7, 7))
    with pytest.raises(ValueError, match=r"FitNet: level 0: .*rebuild it with from_sample"):
        kd.FitNet((3, 4, 4), (3, 4, 4))(torch.zeros(2, 3, 5, 5), torch.zeros(2, 3, 4, 4))
