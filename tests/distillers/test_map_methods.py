"""CWD, PKD, CATKD, SRD and ReviewKD against loops over channels and positions."""

import math

import pytest
import torch
import torch.nn.functional as F
from support.distiller_cases import leaf, randomise_, same_loss_and_gradient

import kdops.distillers as kd


def maps():
    return leaf(3, 4, 5, 6), leaf(3, 4, 5, 6, seed=1)


@pytest.mark.parametrize("temperature", [4.0, 1.0])
def test_cwd(temperature):
    s, t = maps()
    theirs = 0.0
    for x, y in zip(s.flatten(0, 1), t.detach().flatten(0, 1), strict=True):
        p, q = (torch.exp(z.flatten() / temperature) for z in (x, y))
        p, q = p / p.sum(), q / q.sum()
        theirs = theirs + (q * torch.log(q / p)).sum() / 12
    ours = kd.CWD(temperature=temperature)(s, t)
    same_loss_and_gradient(ours, temperature**2 * theirs, [s])
    assert kd.CWD().temperature == 4.0


def test_cwd_sizes_and_masks():
    s, t = maps()
    large = leaf(3, 4, 10, 12, seed=2)
    torch.testing.assert_close(kd.CWD()(s, large), kd.CWD()(s, F.avg_pool2d(large, 2)))
    with pytest.raises(ValueError, match=r"CWD: level 0: the student has 4 channels"):
        kd.CWD()(s, leaf(3, 6, 5, 6))
    with pytest.raises(ValueError, match="CWD: level 0: expected maps"):
        kd.CWD()(s[:, :, 0, 0], t[:, :, 0, 0])
    x, y = leaf(2, 7, 4), leaf(2, 7, 4, seed=1)
    method = kd.CWD(temperature=0.5, layout="tokens")  # a padded position over 0.5 overflows
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [0] * 7])
    torch.testing.assert_close(2 * method(x, y, mask=mask), method(x[:1, :4], y[:1, :4]))


def test_pkd():
    s, t = maps()

    def standard(x):
        columns = []
        for c in range(4):
            z = x[:, c].flatten()
            z = z - z.sum() / 90
            columns.append(z / ((z.square().sum() / 89).sqrt() + 1e-6))
        return torch.stack(columns)

    theirs = 0.5 * (standard(s) - standard(t.detach())).square().sum() / 360
    same_loss_and_gradient(kd.PKD()(s, t), theirs, [s])
    rows = [x.detach().movedim(1, -1).flatten(0, -2) for x in (s, t)]
    torch.testing.assert_close(kd.PKD()(*rows), theirs.detach())
    torch.testing.assert_close(kd.PKD()(3 * s + 2, t), theirs, rtol=1e-5, atol=0)


def test_constant_channels():
    """No spread: zero, with zero gradient, where 1 / eps would be a million."""
    s, t = maps()
    flat = torch.cat([torch.ones_like(s[:, :1]), s[:, 1:]], 1).detach().requires_grad_()
    loss = kd.PKD()(flat, t)
    gradient = torch.autograd.grad(loss, flat)[0]
    assert torch.isfinite(loss)
    assert gradient[:, 0].abs().max() == 0
    assert gradient[:, 1:].abs().max() < 1


@pytest.mark.parametrize("normalize", [True, False])
def test_catkd(normalize):
    s, t = leaf(3, 7, 4, 4), leaf(3, 7, 8, 6, seed=1)

    def small(x):
        x = F.adaptive_avg_pool2d(x, 2).flatten(2)
        return x / x.square().sum(2, keepdim=True).sqrt() if normalize else x

    theirs = (small(s) - small(t.detach())).square().sum() / (3 * 7 * 4)
    same_loss_and_gradient(kd.CATKD(normalize=normalize)(s, t), theirs, [s])
    with pytest.raises(ValueError, match=r"CATKD: level 0: .*same classes.*\[3, 7, 4, 4\]"):
        kd.CATKD()(s, t[:, :6])


def batch_norm(x, eps):
    mean = x.mean(0)
    return (x - mean) / ((x - mean).square().mean(0) + eps).sqrt()


def test_srd():
    s, t = leaf(5, 4), leaf(5, 6, seed=1)
    method = kd.SRD.from_sample(s, t)
    randomise_(method)
    linear = method.projectors[0][0]
    f_s = batch_norm(s @ linear.weight.T + linear.bias, 1e-4)
    gap = f_s - batch_norm(t.detach(), 1e-4)
    theirs = torch.log(gap.abs().pow(4).sum())
    # a shift of the projector's output is undone by the normalisation
    same_loss_and_gradient(method(s, t), theirs, [s, linear.weight])
    maps_s, maps_t = (x.detach()[..., None, None].expand(-1, -1, 2, 3) for x in (s, t))
    torch.testing.assert_close(method(maps_s, maps_t), theirs.detach())
    power = kd.SRD([4], [6], exponent=2.0).double()
    power.load_state_dict(method.state_dict())
    torch.testing.assert_close(power(s, t), torch.log(gap.square().sum()))


def test_srd_of_equal_features_and_of_one_sample():
    s, t = leaf(5, 4), leaf(5, 4, seed=1)
    method = kd.SRD([4], [4]).double()
    with torch.no_grad():
        method.projectors[0][0].weight.copy_(torch.eye(4))
        method.projectors[0][0].bias.zero_()
    loss = method(s, s.detach())
    assert torch.isfinite(loss)
    assert torch.autograd.grad(loss, s)[0].abs().max() == 0
    far = method(1e-200 * s, t), method(1e150 * s, t)
    assert all(map(torch.isfinite, far))
    assert method(s[:1], t[:1]) == 0
    method.eval()
    assert method(s[:1], t[:1]) != 0


def fused(method, student, sizes):
    """ABF from deep to shallow, written out."""

    def conv(block, x, padding):
        y = F.conv2d(x, block[0].weight, padding=padding)
        mean = y.mean((0, 2, 3), keepdim=True)
        y = (y - mean) / ((y - mean).square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
        return y * block[1].weight[:, None, None] + block[1].bias[:, None, None]

    outputs, deeper = [], None
    for i in reversed(range(len(student))):
        block = method.fusions[i]
        x = conv(block.reduce, student[i], 0)
        if deeper is not None:
            y = F.interpolate(deeper, x.shape[2:], mode="nearest")
            share = F.conv2d(torch.cat([x, y], 1), block.attend.weight, block.attend.bias)
            a, b = torch.sigmoid(share).unsqueeze(2).unbind(1)
            x = x * a + y * b
        deeper = F.interpolate(x, sizes[i], mode="nearest")
        outputs.insert(0, conv(block.expand, deeper, 1))
    return outputs


def test_reviewkd():
    shapes_s = [(3, 4, 8, 8), (3, 6, 4, 4), (3, 7)]
    shapes_t = [(3, 5, 8, 8), (3, 8, 5, 4), (3, 9)]
    student = [leaf(*shape, seed=i) for i, shape in enumerate(shapes_s)]
    teacher = [leaf(*shape, seed=9 + i) for i, shape in enumerate(shapes_t)]
    method = kd.ReviewKD.from_sample(student, teacher)
    randomise_(method)
    assert method.fusions[0].reduce[0].out_channels == 7
    levels_s = [*student[:2], student[2][..., None, None]]
    levels_t = [x.detach() for x in (*teacher[:2], teacher[2][..., None, None])]
    theirs = 0.0
    outputs = fused(method, levels_s, [x.shape[2:] for x in levels_t])
    for out, t in zip(outputs, levels_t, strict=True):
        loss, weights = (out - t).square().mean(), [1.0]
        for size in (4, 2, 1):
            if size < out.shape[2]:
                weights.append(weights[-1] / 2)
                pools = [F.adaptive_avg_pool2d(x, (size, size)) for x in (out, t)]
                loss = loss + weights[-1] * (pools[0] - pools[1]).square().mean()
        theirs = theirs + loss / sum(weights)
    parameters = [p for p in method.parameters() if p.ndim == 4]
    same_loss_and_gradient(method(student, teacher), theirs, [*student, *parameters], tol=1e-8)
    method.weights = (0.0, 0.0, 1.0)
    assert method(student, teacher) < theirs
    with pytest.raises(ValueError, match=r"ReviewKD: level 0: expected a student map"):
        method([student[0][:, :, 0, 0], *student[1:]], teacher)


def test_arguments():
    for make, wrong in ((kd.CWD, {"temperature": 0.0}), (kd.CATKD, {"resolution": 0})):
        with pytest.raises(ValueError, match=rf"^{make.__name__}: "):
            make(**wrong)
    with pytest.raises(ValueError, match="SRD: the exponent is 1 or more"):
        kd.SRD(4, 4, exponent=0.5)
    assert math.isclose(kd.PKD.default_weight, 6.0)
