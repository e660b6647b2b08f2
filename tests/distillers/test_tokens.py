"""Tokens (B, N, D): layouts that are said, the value of the same map, and masks of padding."""

import pytest
import torch
from support.distiller_cases import CASES, leaf, said
from torch import nn

import kdops.distillers as kd
from kdops.features import tokens_to_maps

CONVOLVES = {
    "FactorTransfer",
    "ReviewKD",
    "CATKD",
}  # 3x3 kernels: no tokens without a grid, no mask
MASKED = [c for c in CASES if c.name not in CONVOLVES | {"OnTheFlyEnsemble"}]
CHANNELS = [8, 12, 12]


def tokens(case, batch=4, count=9, seed=0):
    """Tokens of three levels, or token logits."""
    widths = CHANNELS if case.inputs == "maps" else [24 if case.inputs == "vectors" else 10]
    return [leaf(batch, count, d, seed=seed + i) for i, d in enumerate(widths)]


def turned(features):
    return [x.detach().transpose(1, 2).contiguous().requires_grad_() for x in features]


def build(case, batch=4, count=9):
    """The method for tokens, its student's and its teacher's."""
    torch.manual_seed(0)
    student, teacher = tokens(case, batch, count), tokens(case, batch, count, 50)
    grids = [[tokens_to_maps(x, grid="square") for x in f] for f in (student, teacher)]
    return said(case.build(*grids), "tokens"), student, teacher


def loss_and_gradients(method, student, teacher, **options):
    method.zero_grad()
    loss = method(student, teacher, **options)
    own = [p for p in method.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [*student, *own], allow_unused=True)
    return [loss, *(g for g in found if g is not None)]


def same(ours, theirs):
    top = max(float(b.detach().abs().max()) for b in theirs[1:])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10 * top)


TOKEN_CASES = [c for c in CASES if c.name != "OnTheFlyEnsemble"]


@pytest.mark.parametrize("case", TOKEN_CASES, ids=lambda c: c.name)
def test_tokens_have_the_value_of_the_transposed_map(case):
    method, student, teacher = build(case)
    if case.name in CONVOLVES:
        with pytest.raises(ValueError, match=r"\[B, C, H, W\].*tokens need a grid"):
            method(student, teacher)
        return
    ours = loss_and_gradients(method, student, teacher)
    maps = turned(student)
    theirs = loss_and_gradients(said(method, "channels"), maps, turned(teacher))
    count = len(student)
    theirs[1 : 1 + count] = [g.transpose(1, 2) for g in theirs[1 : 1 + count]]
    same(ours, theirs)
    assert ours[1].abs().max() > 0


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_three_dimensions_need_their_layout(case):
    """A ValueError that names both readings, from either side; 2 and 4 dimensions need none."""
    method, student, teacher = build(case)
    said(method, None)
    if case.name == "OnTheFlyEnsemble":
        with pytest.raises(ValueError, match="9 tokens of 10 channels"):
            method.method([student[0][:, 0]] * 2, student[0])
        return
    reading = (
        r"^\w+: level 0: the {} is \[4, 9, \d+\], .*9 tokens of .*a map of 9 channels.*layout="
    )
    with pytest.raises(ValueError, match=reading.format("student")):
        method(student, teacher)
    marked = [tokens_to_maps(x) for x in student]
    with pytest.raises(ValueError, match=r"the teacher is|student and teacher|alike"):
        method(marked, teacher)


def test_from_sample_and_prepare_need_it_too():
    case = next(c for c in CASES if c.name == "MHGD")
    s, t = tokens(case), tokens(case, seed=50)
    with pytest.raises(ValueError, match=r"MHGD: level 0: the student is \[4, 9, 8\].*layout"):
        kd.MHGD.from_sample(s, t)
    method = kd.MHGD.from_sample(s, t, layout="tokens")
    assert method.channels == [(c, c) for c in CHANNELS]
    method.prepare([t], epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"MHGD\.prepare: level 0 is \[4, 9, 8\].*layout"):
        said(method, None).prepare([t], progress=False)
    with pytest.raises(ValueError, match="RKD: layout is 'tokens', 'channels' or None, got 'NCL'"):
        kd.RKD(layout="NCL")


def padded(x, lengths, count):
    """x with NaN behind each sample's tokens, count of them in all."""
    longer = x.detach().new_full((x.shape[0], count, x.shape[2]), float("nan"))
    for i, n in enumerate(lengths):
        longer[i, :n] = x.detach()[i, :n]
    return longer.requires_grad_()


def mask_of(lengths, count):
    return torch.arange(count) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("case", MASKED, ids=lambda c: c.name)
@pytest.mark.parametrize("lengths", [[9, 9, 9, 9], [7, 9, 2, 5]], ids=["equal", "ragged"])
def test_padding_changes_nothing(case, lengths):
    """More padding changes neither value nor gradient; padded tokens have zero gradient."""
    method, student, teacher = build(case)
    ragged = min(lengths) < 9
    theirs_mask = mask_of(lengths, 9).long() if ragged else None
    short = [x.detach()[:, :9].requires_grad_() for x in student]
    options = {} if theirs_mask is None else {"mask": theirs_mask}
    theirs = loss_and_gradients(method, short, teacher, **options)
    longer = [[padded(x, lengths, 13) for x in f] for f in (student, teacher)]
    keep = mask_of(lengths, 13)
    ours = loss_and_gradients(method, *longer, mask=keep)
    for i in range(1, 1 + len(student)):
        assert (ours[i][~keep] == 0).all()
        ours[i] = ours[i][:, :9]
    same(ours, theirs)


SAMPLE_BY_SAMPLE = [
    *("KDSVD", "AttentionTransfer-paper", "FSP", "NST", "NST-gaussian"),
    *("GramAnchoring", "KTA"),
]


@pytest.mark.parametrize("name", SAMPLE_BY_SAMPLE)
def test_a_ragged_batch_is_the_mean_of_its_samples(name):
    case = next(c for c in CASES if c.name == name)
    method, student, teacher = build(case)
    lengths = [7, 9, 2, 5]
    ours = method(student, teacher, mask=mask_of(lengths, 9))
    alone = [
        method(*[[x[i : i + 1, :n] for x in f] for f in (student, teacher)])
        for i, n in enumerate(lengths)
    ]
    torch.testing.assert_close(ours, torch.stack(alone).mean())


@pytest.mark.parametrize("name", ["FitNet", "VID", "AttentionTransfer", "SoftTarget"])
def test_means_are_over_the_tokens_of_the_batch(name):
    """What is a mean over samples and positions counts every token once."""
    case = next(c for c in CASES if c.name == name)
    method, student, teacher = build(case)
    method.eval()
    lengths = torch.tensor([7, 9, 2, 5])
    ours = method(student, teacher, mask=mask_of(lengths.tolist(), 9))
    alone = [
        n * method(*[[x[i : i + 1, :n] for x in f] for f in (student, teacher)])
        for i, n in enumerate(lengths.tolist())
    ]
    torch.testing.assert_close(ours, torch.stack(alone).sum() / lengths.sum())


@pytest.mark.parametrize("case", MASKED, ids=lambda c: c.name)
def test_a_sample_without_tokens(case):
    """It is finite, and so is a batch without any; a grid takes a mask as well."""
    method, student, teacher = build(case)
    for lengths in ([0, 9, 3, 4], [0, 0, 0, 0]):
        mask = mask_of(lengths, 9)
        found = loss_and_gradients(method, student, teacher, mask=mask)
        assert all(torch.isfinite(x).all() for x in found)
        grids = [[tokens_to_maps(x, grid="square") for x in f] for f in (student, teacher)]
        torch.testing.assert_close(method(*grids, mask=mask), found[0])


def test_masks_that_do_not_fit():
    s, t = [leaf(4, 9, 8), leaf(4, 9, 12)], [leaf(4, 9, 8), leaf(4, 9, 12)]
    method, mask = kd.KDSVD(layout="tokens"), torch.ones(4, 9)
    torch.testing.assert_close(method(s, t, mask=[mask, None]), method(s, t))
    for wrong in (mask[:, 1:], mask[:3], mask[0]):
        with pytest.raises(ValueError, match=r"KDSVD: level 0: expected a mask \[4, 9\].*prefix:"):
            method(s, t, mask=wrong)
    with pytest.raises(ValueError, match="KDSVD: 1 masks for 2 levels"):
        method(s, t, mask=[mask])
    with pytest.raises(ValueError, match=r"KDSVD: level 1: the mask is on meta"):
        method(s, t, mask=[None, mask.to("meta")])
    with pytest.raises(ValueError, match=r"KDSVD: level 0: one mask.*equal positions"):
        method(s, [x[:, 1:] for x in t], mask=mask)
    grid = [torch.randn(4, 8, 3, 3)]
    prepared = kd.FactorTransfer([8], [8])
    prepared.mark_prepared()
    with pytest.raises(ValueError, match="FactorTransfer: takes no mask: its convolutions"):
        prepared(grid, grid, mask=mask)
    assert kd.RKD()(leaf(4, 5), leaf(4, 6), mask=mask) > 0  # embeddings have nothing to mask


def test_a_sample_shorter_than_the_candidates():
    """Singular vectors that exist by the padding alone are not chosen."""
    s, t = ([leaf(3, 2, d, seed=d + i) for d in (8, 12)] for i in (0, 50))
    method = kd.KDSVD(k=1, candidates=3, layout="tokens")
    longer = [[padded(x, [2, 2, 2], 6) for x in f] for f in (s, t)]
    torch.testing.assert_close(method(*longer, mask=mask_of([2, 2, 2], 6)), method(s, t))


@pytest.mark.parametrize("name", ["AttentionTransfer", "NST", "VID", "FitNet", "Overhaul"])
def test_tokens_of_different_number_need_a_grid(name):
    case = next(c for c in CASES if c.name == name)
    method, student, teacher = build(case)
    with pytest.raises(ValueError, match=rf"{name}: .*(tokens need a grid|no regressor|regressor)"):
        method(student, [x[:, :4] for x in teacher])
    grids = [[tokens_to_maps(x, grid="square") for x in f] for f in (student, teacher)]
    smaller = [x[:, :, :2, :2] for x in grids[1]]
    if name != "FitNet":
        assert torch.isfinite(method(grids[0], smaller))
    s, t = ([leaf(4, n, 8, seed=i + n) for n in (9, 4)] for i in (0, 5))
    with pytest.raises(ValueError, match=r"FSP: levels 0 and 1: .*tokens need a grid"):
        kd.FSP(layout="tokens")(s, t)


def test_token_targets():
    z, t, y = leaf(4, 9, 10), leaf(4, 9, 10, seed=1), torch.arange(36).view(4, 9) % 10
    mask = mask_of([7, 9, 2, 5], 9)
    rows = kd.SoftTarget()(z[mask], t[mask], y[mask])
    method = kd.SoftTarget(layout="tokens")
    torch.testing.assert_close(method(z, t, y, mask=mask), rows)
    one_hot = nn.functional.one_hot(y, 10).double()
    torch.testing.assert_close(method(z, t, one_hot, mask=mask), rows)
    torch.testing.assert_close(
        method(z, t, one_hot), kd.SoftTarget()(*(x.flatten(0, 1) for x in (z, t, y)))
    )
    with pytest.raises(ValueError, match=r"SoftTarget: .*target of class indices"):
        method(z, t, y[:, :8], mask=mask)


def test_a_sum_passes_mask_and_layout_on():
    z, t = leaf(4, 3), leaf(4, 3, seed=1)
    x, y = [leaf(4, 9, 8), leaf(4, 9, 8, seed=1)], [leaf(4, 9, 8, seed=2), leaf(4, 9, 8, seed=3)]
    both = kd.WeightedSum({"kd": kd.SoftTarget(), "svd": kd.KDSVD()}, layout="tokens")
    mask = mask_of([7, 9, 2, 5], 9)
    loss = both({"kd": z, "svd": x}, {"kd": t, "svd": y}, mask=mask)
    expected = kd.SoftTarget()(z, t) + kd.KDSVD(layout="tokens")(x, y, mask=mask)
    torch.testing.assert_close(loss, expected)
