"""DKD, DIST, WSLD, MLKD and standardised SoftTarget against sums over classes and samples."""

import math

import pytest
import torch
from support.distiller_cases import leaf, same_loss_and_gradient

import kdops.distillers as kd

LABELS = torch.tensor([0, 3, 6, 2, 2])
METHODS = [kd.DKD(), kd.WSLD(), kd.DIST(), kd.MLKD(), kd.SoftTarget(standardise=True)]


def pair(rows=5, classes=7):
    return leaf(rows, classes), leaf(rows, classes, seed=1)


def softened(z, temperature):
    e = torch.exp(z / temperature)
    return e / e.sum(1, keepdim=True)


def kl(p, q):
    """KL(p || q) of two lists of numbers."""
    return sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dkd(temperature):
    z_s, z_t = pair()
    p_s, p_t = softened(z_s, temperature), softened(z_t.detach(), temperature)
    tckd = nckd = 0.0
    for s, t, y in zip(p_s, p_t, LABELS.tolist(), strict=True):
        rest = [c for c in range(7) if c != y]
        sum_s, sum_t = sum(s[c] for c in rest), sum(t[c] for c in rest)
        tckd = tckd + kl([t[y], sum_t], [s[y], sum_s]) / 5
        nckd = nckd + kl([t[c] / sum_t for c in rest], [s[c] / sum_s for c in rest]) / 5
    theirs = temperature**2 * (0.7 * tckd + 3.0 * nckd)
    ours = kd.DKD(alpha=0.7, beta=3.0, temperature=temperature)(z_s, z_t, LABELS)
    same_loss_and_gradient(ours, theirs, [z_s])
    assert (kd.DKD().alpha, kd.DKD().beta, kd.DKD().temperature) == (1.0, 8.0, 4.0)


def test_two_classes_and_one():
    """NCKD has nothing to compare: TCKD alone, and no NaN."""
    z_s, z_t = pair(4, 2)
    labels = torch.tensor([0, 1, 1, 0])
    loss = kd.DKD(beta=100.0)(z_s, z_t, labels)
    torch.testing.assert_close(loss, kd.DKD(beta=0.0)(z_s, z_t, labels))
    torch.testing.assert_close(loss, kd.SoftTarget()(z_s, z_t))
    single = leaf(4, 1)
    assert kd.DKD()(single, leaf(4, 1, seed=1), 0 * labels) == 0


@pytest.mark.parametrize("method", [kd.DKD(temperature=1.0), kd.WSLD(1.0), kd.SoftTarget(1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classes_without_mass(method, dtype):
    """Certain predictions, and classes ruled out by minus infinity: defined loss and gradient."""
    certain = torch.tensor([[1e4, 0.0, -1e4], [0.0, 500.0, 0.0]], dtype=dtype)
    ruled_out = torch.tensor([[1.0, 2.0, -math.inf], [-math.inf, 0.5, 0.2]], dtype=dtype)
    options = {"target": torch.tensor([0, 1])} if method.needs else {}
    for s, t in [(certain, certain.flip(1)), (certain, certain), (ruled_out, ruled_out),
                 (torch.zeros_like(certain), ruled_out)]:  # fmt: skip
        s = s.clone().requires_grad_()
        loss = method(s, t, **options)
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, s)[0]).all()


def test_labels_to_ignore():
    z_s, z_t = pair()
    labels = torch.tensor([0, -100, 6, -100, 2])
    for method in (kd.DKD(), kd.WSLD()):
        kept = method(z_s[::2], z_t[::2], labels[::2])
        torch.testing.assert_close(method(z_s, z_t, labels), kept)
        assert method(z_s, z_t, torch.full((5,), -100)) == 0


@pytest.mark.parametrize("method", [kd.DKD(), kd.WSLD()])
def test_targets_that_do_not_fit(method):
    z_s, z_t = pair()
    with pytest.raises(ValueError, match=rf"{method.name}: needs the classes.*target="):
        method(z_s, z_t)
    with pytest.raises(ValueError, match="expected a target of class indices"):
        method(z_s, z_t, LABELS[:4])
    with pytest.raises(ValueError, match=r"class indices, got probabilities.*argmax"):
        method(z_s, z_t, softened(z_t, 1.0))
    with pytest.raises(ValueError, match=r"holds class 7, the logits have 7 classes, \[5, 7\]"):
        method(z_s, z_t, LABELS + 1)


def test_wsld():
    z_s, z_t = pair()
    one_s, one_t = softened(z_s.detach(), 1.0), softened(z_t.detach(), 1.0)
    p_s, p_t = softened(z_s, 2.0), softened(z_t.detach(), 2.0)
    theirs = 0.0
    for b, y in enumerate(LABELS.tolist()):
        ratio = torch.log(one_s[b, y]) / (torch.log(one_t[b, y]) - 1e-7)
        soft = -sum(p_t[b, c] * torch.log(p_s[b, c]) for c in range(7))
        theirs = theirs + (1 - torch.exp(-ratio)) * soft / 5
    same_loss_and_gradient(kd.WSLD()(z_s, z_t, LABELS), 4 * theirs, [z_s])


def correlation(x, y, eps=0.0):
    x, y = x - sum(x) / len(x), y - sum(y) / len(y)
    return (x * y).sum() / (x.square().sum().sqrt() * y.square().sum().sqrt() + eps)


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_dist(eps):
    z_s, z_t = pair()
    p_s, p_t = softened(z_s, 4.0), softened(z_t.detach(), 4.0)
    inter = 1 - sum(correlation(p_s[b], p_t[b], eps) for b in range(5)) / 5
    intra = 1 - sum(correlation(p_s[:, c], p_t[:, c], eps) for c in range(7)) / 7
    same_loss_and_gradient(kd.DIST(eps=eps)(z_s, z_t), 16 * (inter + intra), [z_s])
    weighted = kd.DIST(inter_weight=2.0, intra_weight=0.5, eps=eps)
    same_loss_and_gradient(weighted(z_s, z_t), 16 * (2 * inter + 0.5 * intra), [z_s])


@pytest.mark.parametrize("shape", [(5, 7), (9, 4)])
def test_mlkd(shape):
    """Through B x B and through classes x classes."""
    z_s, z_t = pair(*shape)
    theirs = 0.0
    for temperature in (4.0, 2.0, 3.0, 5.0, 6.0):
        p_s, p_t = softened(z_s, temperature), softened(z_t.detach(), temperature)
        terms = sum(kl(t, s) for s, t in zip(p_s, p_t, strict=True)) / shape[0]
        theirs = theirs + temperature**2 * terms
        theirs = theirs + (p_s.T @ p_s - p_t.T @ p_t).square().sum() / shape[1]
        theirs = theirs + (p_s @ p_s.T - p_t @ p_t.T).square().sum() / shape[0]
    same_loss_and_gradient(kd.MLKD()(z_s, z_t), theirs, [z_s])
    single = kd.MLKD(others=())(z_s, z_t)
    assert single < kd.MLKD(6.0)(z_s, z_t)


def test_gram_gaps_keep_their_digits():
    """A student next to its teacher: 1e-12 apart, where the norms of the Gram matrices cancel."""
    x = leaf(9, 4).detach()
    d = 1e-12 * leaf(9, 4, seed=3).detach()
    expected = (d @ x.T + x @ d.T).square().sum()
    torch.testing.assert_close(kd._standard.gram_gap(x + d, x), expected, rtol=1e-3, atol=0)
    assert kd._standard.gram_gap(x, x) == 0


def test_standardised_soft_target():
    z_s, z_t = pair()

    def standard(z):
        mean = z.sum(1, keepdim=True) / 7
        spread = ((z - mean).square().sum(1, keepdim=True) / 6).sqrt()
        return (z - mean) / (spread + 1e-7)

    p_s, p_t = softened(standard(z_s), 2.0), softened(standard(z_t.detach()), 2.0)
    theirs = 4 * sum(kl(t, s) for s, t in zip(p_s, p_t, strict=True)) / 5
    ours = kd.SoftTarget(standardise=True)
    same_loss_and_gradient(ours(z_s, z_t), theirs, [z_s])
    assert ours.temperature == 2.0
    assert kd.SoftTarget(3.0, standardise=True).temperature == 3.0
    torch.testing.assert_close(ours(5 * z_s + 3, z_t), ours(z_s, z_t), rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_rows_of_positions(method):
    z_s, z_t = leaf(2, 5, 3, 4), leaf(2, 5, 3, 4, seed=1)
    y = torch.arange(24).view(2, 3, 4) % 5
    rows = [z.permute(0, 2, 3, 1).reshape(-1, 5) for z in (z_s, z_t)]
    one, other = ([y], [y.flatten()]) if method.needs else ([], [])
    torch.testing.assert_close(method(z_s, z_t, *one), method(*rows, *other))


@pytest.mark.parametrize("make", [kd.DKD, kd.WSLD, kd.DIST, kd.MLKD])
def test_temperatures(make):
    with pytest.raises(ValueError, match=f"{make.__name__}: .*temperature.* must be positive"):
        make(temperature=0.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_student_that_is_its_teacher(method):
    z = leaf(4, 6)
    loss = method(z, z.detach(), *([LABELS[:4] % 6] if method.needs else []))
    gradient = torch.autograd.grad(loss, z)[0]
    assert gradient.abs().max() < (1e-6 if method.name != "WSLD" else 1.0)
    assert method.name == "WSLD" or abs(loss) < 1e-12
