"""What is special to the similarity KL: near and sharp rows, masks, sizes that are never stored."""

import math

import pytest
import torch
from support.new_process import run_python

import kdops
from benchmarks.published import similarity_kl as published
from kdops._library import missing
from kdops.ops.similarity_kl import gradient, pkt_loss, reference
from kdops.testing import assert_close, relative_error

native = pytest.mark.skipif(missing is not None, reason=str(missing))
both = pytest.mark.parametrize("backend", ["native", "reference"])
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")


def transcribed(student, teacher, tau_s, tau_t, self_pairs=True):
    """One row at a time, in the words of the formula."""
    total = 0.0
    for i in range(len(student)):
        others = [j for j in range(len(student)) if self_pairs or j != i]
        cosines = [
            torch.stack([x[i] @ x[j] / (x[i].norm() * x[j].norm()) for j in others])
            for x in (student, teacher)
        ]
        p, q = (cosines[1] / tau_t).exp(), (cosines[0] / tau_s).exp()
        p, q = p / p.sum(), q / q.sum()
        total = total + (p * (p / q).log()).sum()
    return total / len(student)


@both
@pytest.mark.parametrize("self_pairs", [True, False])
def test_against_a_transcription(backend, self_pairs):
    s = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    t = torch.randn(9, 7, dtype=torch.float64)
    expected = transcribed(s, t, 0.3, 0.2, self_pairs)
    with kdops.backend(backend):
        loss = kdops.similarity_kl_loss(
            s, t, temperature=0.3, teacher_temperature=0.2, self_pairs=self_pairs
        )
    pairs = [torch.autograd.grad(x, s)[0] for x in (loss, expected)]
    assert abs(loss - expected) < 1e-13 * expected
    assert_close(pairs[0], pairs[1], torch.float64)


def test_published_forms():
    """MiniLM (values of heads, scaled products), CIRKD (a queue of the teacher's embeddings)."""
    q, t = torch.randn(2, 3, 11, 8).double(), torch.randn(2, 3, 11, 16).double()
    logits = [x @ x.mT / math.sqrt(x.shape[-1]) for x in (q, t)]
    expected = torch.nn.functional.kl_div(
        logits[0].log_softmax(-1).flatten(0, 2),
        logits[1].softmax(-1).flatten(0, 2),
        reduction="batchmean",
    )
    assert_close(kdops.similarity_kl_loss(q, t, similarity="dot"), expected, torch.float64)

    s, t, queue = (torch.nn.functional.normalize(torch.randn(n, 6).double()) for n in (5, 5, 40))
    expected = torch.nn.functional.kl_div(
        (s @ queue.T / 0.1).log_softmax(1), (t @ queue.T / 0.1).softmax(1), reduction="batchmean"
    )
    ours = kdops.similarity_kl_loss(s, t, keys=queue, temperature=0.1)
    assert_close(ours, expected, torch.float64)


@both
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_identical_networks(backend, similarity):
    """Zero (by the kernels, to the last bit), with a zero gradient; the curvature of a minimum."""
    s = torch.randn(2, 50, 7, requires_grad=True)
    with kdops.backend(backend):
        loss = kdops.similarity_kl_loss(s, s.detach(), temperature=0.1, similarity=similarity)
        assert loss.abs() <= (0 if backend == "native" else 1e-12)
        rest = torch.autograd.grad(loss, s, retain_graph=True)[0].abs().max()
        assert rest <= (0 if backend == "native" else 1e-14)
        (g,) = torch.autograd.grad(loss, s, create_graph=True)
    direction = torch.randn_like(s)
    assert (torch.autograd.grad(g, s, direction)[0] * direction).sum() > 1e-3


@native
def test_near_networks_keep_their_digits():
    """The loss is of the order of the squared difference, and is no rest of large numbers."""
    s = torch.randn(200, 16, dtype=torch.float64)
    for near in (1e-1, 1e-2):
        s32 = s.float().requires_grad_()
        t32 = (s + near * torch.randn_like(s)).float()
        exact = s32.detach().double().requires_grad_()
        losses = [kdops.similarity_kl_loss(x, t32.to(x), temperature=0.1) for x in (s32, exact)]
        grads = [torch.autograd.grad(*pair)[0] for pair in zip(losses, (s32, exact), strict=True)]
        assert 0 < losses[1] < near
        assert relative_error(losses[0], losses[1]) < 1e-6 / near
        assert relative_error(*grads) < 1e-6 / near


@native
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_offset_rows_keep_their_digits(similarity):
    """All similarities are nearly equal: the rows are centred, which a softmax does not see."""
    s, t = (1 + 0.01 * torch.randn(100, 64) for _ in range(2))
    s.requires_grad_()
    exact = s.detach().double().requires_grad_()
    losses = [
        kdops.similarity_kl_loss(x, t.to(x), temperature=0.05, similarity=similarity)
        for x in (s, exact)
    ]
    grads = [torch.autograd.grad(*pair)[0] for pair in zip(losses, (s, exact), strict=True)]
    assert relative_error(*losses) < 1e-5
    assert relative_error(*grads) < 1e-3  # of differences of 4e-4 between logits near 20


@native
@pytest.mark.parametrize("scales", [(1, 1), (1e3, 1e3), (1e18, 1e18), (1e18, 1), (1, 1e18)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scales_of_inner_products(scales, dtype):
    """Logits too large for float are computed in double. Where those of one network are far larger,
    the other's are no more than the rounding of a difference of both."""
    s, t = (scale * torch.randn(40, 6, dtype=dtype) for scale in scales)
    leaves = [s.requires_grad_(), s.detach().double().requires_grad_()]
    loss = kdops.similarity_kl_loss(leaves[0], t, similarity="dot")
    with kdops.backend("reference"):
        expected = kdops.similarity_kl_loss(leaves[1], t.double(), similarity="dot")
    assert_close(loss, expected, dtype)
    pair = [torch.autograd.grad(*x)[0] for x in zip((loss, expected), leaves, strict=True)]
    assert_close(*pair, dtype, factor=4)


@both
def test_zero_rows(backend):
    """They have cosine 0 with all, themselves included, and no gradient."""
    s, t = torch.randn(20, 4), torch.randn(20, 5)
    s[3] = 0
    t[7] = 0
    s.requires_grad_()
    with kdops.backend(backend):
        loss = kdops.similarity_kl_loss(s, t, temperature=0.1)
    (g,) = torch.autograd.grad(loss, s)
    assert loss.isfinite()
    assert g.isfinite().all()
    assert not g[3].any()
    assert g[7].any()


@both
def test_one_row_without_itself_meets_nobody(backend):
    s = torch.randn(3, 1, 4, requires_grad=True)
    with kdops.backend(backend):
        loss = kdops.similarity_kl_loss(s, torch.randn(3, 1, 4), self_pairs=False)
    assert loss == 0
    assert not torch.autograd.grad(loss, s)[0].any()


@both
def test_padding_changes_nothing(backend):
    """Whatever it holds; masks of numbers are masks, and a sample may be padding alone."""
    s, t = torch.randn(3, 40, 6), torch.randn(3, 40, 5)
    mask = torch.rand(3, 40) < 0.5
    mask[2] = False
    short = [x[i, mask[i]] for i in range(2) for x in (s, t)]
    leaves = [x.requires_grad_() for x in short[::2]]
    s, t = (x.masked_fill(~mask.unsqueeze(-1), math.nan) for x in (s, t))
    s.requires_grad_()
    options = {"temperature": 0.1, "self_pairs": False}
    with kdops.backend(backend):
        parts = [
            kdops.similarity_kl_loss(leaf, other, **options) * len(leaf)
            for leaf, other in zip(leaves, short[1::2], strict=True)
        ]
        expected = sum(parts) / mask.sum()
        loss = kdops.similarity_kl_loss(s, t, mask=mask.long(), **options)
    (g,) = torch.autograd.grad(loss, s)
    assert_close(loss, expected, torch.float32)
    assert_close([g[i, mask[i]] for i in range(2)], torch.autograd.grad(expected, leaves), s.dtype)
    assert not g[~mask].any()


@both
def test_nan_stays_in_its_batch_entry(backend):
    s, t = torch.randn(3, 10, 4), torch.randn(3, 10, 4)
    clean = s.clone().requires_grad_()
    s[1, 2] = math.nan
    s.requires_grad_()
    with kdops.backend(backend):
        loss = kdops.similarity_kl_loss(s, t)
        expected = torch.autograd.grad(kdops.similarity_kl_loss(clean, t), clean)[0]
    assert loss.isnan()
    (g,) = torch.autograd.grad(loss, s)
    assert g[1].isnan().all()
    for b in (0, 2):
        assert_close(g[b], expected[b], torch.float32)


@native
def test_gradients_only_of_what_asks_for_one():
    s, t = torch.randn(5, 4), torch.randn(5, 4)
    own, theirs = torch.randn(9, 4, requires_grad=True), torch.randn(9, 4)
    loss = kdops.similarity_kl_loss(s, t, keys=(own, theirs))
    wide = kdops.similarity_kl_loss(s.double(), t.double(), keys=(own.double(), theirs.double()))
    pair = [torch.autograd.grad(x, own)[0] for x in (loss, wide)]
    assert_close(*pair, torch.float32)


def test_options_that_do_not_fit():
    s, keys = torch.randn(4, 3), torch.randn(5, 3)
    for message, options in {
        "temperature > 0, got 0": {"temperature": 0},
        "teacher_temperature > 0, got -1": {"teacher_temperature": -1},
        "one of 'cosine', 'dot', got 'l2'": {"similarity": "l2"},
        "scale belongs to similarity='dot'": {"scale": 2.0},
        "a row is none of its keys": {"self_pairs": False, "keys": keys},
        "expected keys, or a pair of them, got 3": {"keys": (keys,) * 3},
        r"mask of shape \[4\], the rows of student, got list": {"mask": [1, 1, 1, 0]},
    }.items():
        with pytest.raises(ValueError, match=f"^similarity_kl_loss: .*{message}"):
            kdops.similarity_kl_loss(s, s, **options)


def test_formula_agrees_with_autograd_of_the_reference(monkeypatch):
    """Also where the reference takes a few rows at a time."""
    options = reference.Options(4.0, 3.0, True, False)
    s = torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    t, mask = torch.randn(2, 9, 3, dtype=torch.float64), torch.rand(2, 9) < 0.7
    expected = gradient.similarity_kl_gradient(s, None, t, None, mask, options)[0]
    whole = reference.similarity_kl_loss(s, None, t, None, mask, options)
    monkeypatch.setattr("kdops._recompute.CHUNK", 40)
    parts = reference.similarity_kl_loss(s, None, t, None, mask, options)
    assert_close(parts, whole, torch.float64)
    for loss in (whole, parts):
        assert_close(torch.autograd.grad(loss, s)[0], expected, torch.float64)


@pytest.mark.slow
@native
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_every_instruction_set(isa):
    """Odd sizes, kept and streamed products, against the float64 reference."""
    code = """
    import torch, kdops
    from kdops.testing import assert_close
    torch.manual_seed(0)
    def check(shape, width, keys=None, **options):
        s, t = torch.randn(*shape), torch.randn(*shape[:-1], width)
        for dtype in (torch.float64, torch.float32):
            results = []
            for name, kind in (("native", dtype), ("reference", torch.float64)):
                given = s.to(kind).requires_grad_()
                meets = None if keys is None else keys.to(kind)
                with kdops.backend(name):
                    out = kdops.similarity_kl_loss(given, t.to(kind), keys=meets, **options)
                results.append((out, torch.autograd.grad(out, given)))
            assert_close(results[0], results[1], dtype, factor=4)
    check((77, 19), 33, temperature=0.1)
    check((2, 131, 5), 7, self_pairs=False, mask=torch.rand(2, 131) < 0.6)
    check((800, 9), 3, temperature=0.2)
    check((2, 20, 6), 6, similarity="dot", keys=torch.randn(301, 6))
    """
    run_python(code, KDOPS_ISA=isa)


@both
def test_pkt_of_close_far_and_zero_rows(backend):
    """Rows that are nearly equal keep their digits; a zero row has no gradient; opposite rows have
    no share of each other."""
    s, t = 1 + 1e-2 * torch.randn(60, 32), torch.randn(60, 8)
    t[:2] = torch.tensor([[1.0], [-1.0]])
    s[5] = 0
    s.requires_grad_()
    exact = s.detach().double().requires_grad_()
    with kdops.backend(backend):
        losses = [pkt_loss(x, t.to(x)) for x in (s, exact)]
    grads = [torch.autograd.grad(*pair)[0] for pair in zip(losses, (s, exact), strict=True)]
    assert not grads[0][5].any()
    assert_close(losses[0], losses[1], torch.float32)
    assert_close(*grads, torch.float32, factor=4)


@native
def test_pkt_of_identical_networks_and_its_published_number():
    s = torch.randn(40, 6, requires_grad=True)
    (g,) = torch.autograd.grad(pkt_loss(s, s.detach()), s)
    assert pkt_loss(s, s.detach()).abs() < 1e-12
    assert g.abs().max() < 1e-8  # of epsilon, which is part of the published number
    short = (1e-6 * torch.randn(9, 4, dtype=torch.float64)).requires_grad_()
    t = torch.randn(9, 4, dtype=torch.float64)
    expected = published.pkt(short, t)
    assert_close(pkt_loss(short, t), expected, torch.float64)
    pair = [torch.autograd.grad(x, short)[0] for x in (pkt_loss(short, t), expected)]
    assert_close(*pair, torch.float64)
