"""AttentionTransfer: both variants, odd powers, the maximum, unequal sizes."""

import pytest
import torch
from support.distiller_cases import leaf, same_loss_and_gradient

import kdops.distillers as kd


def attention(f, p, reduce):
    """Q / ‖Q‖₂ of one sample, position by position."""
    rows = f.flatten(1).abs() ** p
    q = rows.sum(0) if reduce == "sum" else torch.stack([column.max() for column in rows.T])
    return q / (q**2).sum().sqrt()


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_attention_transfer(variant, reduce, p):
    s, t = (
        [leaf(3, 4, 4, 2), leaf(3, 5, 3, 3, seed=1)],
        [leaf(3, 6, 2, 4, seed=2), leaf(3, 7, 3, 3)],
    )
    theirs = 0.0
    for a, b in zip(s, t, strict=True):
        if a.shape[2:] != b.shape[2:]:  # (4, 2) and (2, 4): both are pooled to (2, 2)
            a, b = a.unfold(2, 2, 2).mean(4), b.unfold(3, 2, 2).mean(4)
        gaps = [attention(a[i], p, reduce) - attention(b[i].detach(), p, reduce) for i in range(3)]
        if variant == "code":
            theirs = theirs + 1000 * torch.stack(gaps).square().mean()
        else:
            theirs = theirs + 500 * sum((g**2).sum().sqrt() for g in gaps) / 3
    method = kd.AttentionTransfer(p=p, reduce=reduce, variant=variant)
    same_loss_and_gradient(method(s, t), theirs, s, tol=1e-8)


def test_invariances():
    s, t = leaf(3, 4, 4, 4), leaf(3, 6, 4, 4, seed=1)
    loss = kd.AttentionTransfer()(s, t)
    torch.testing.assert_close(kd.AttentionTransfer()(-3 * s[:, torch.randperm(4)], t), loss)
    order = torch.randperm(16)
    shuffled = [x.flatten(2)[:, :, order].view_as(x) for x in (s, t)]
    torch.testing.assert_close(kd.AttentionTransfer()(*shuffled), loss)


def test_messages():
    with pytest.raises(ValueError, match=r"AttentionTransfer: level 0: expected maps"):
        kd.AttentionTransfer()(torch.zeros(2, 3), torch.zeros(2, 3))
