"""A matrix of a batch knows nothing of the others, and of how it lies in memory: the same bits."""

import pytest
import torch

from kdops import batched_eigh, batched_svd, batched_svdvals

DTYPES = [torch.float32, torch.float64]


ISOLATION = {
    "full": (lambda A: batched_svd(A), [(8, 8), (13, 13), (24, 24), (40, 40), (64, 16), (16, 64)]),
    "large": (lambda A: batched_svd(A), [(100, 100), (200, 20), (20, 200)]),
    "top 2": (lambda A: batched_svd(A, 2), [(8, 8), (64, 16), (16, 64), (70, 64)]),
    "values": (batched_svdvals, [(8, 8), (24, 24), (40, 40), (64, 16)]),
    "eigh": (batched_eigh, [(8, 8), (40, 40)]),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [8, 16, 20, 32, 33], ids=str)
@pytest.mark.parametrize("function", [batched_svd, batched_svdvals], ids=lambda f: f.__name__)
def test_the_size_of_the_batch_changes_no_bit(function, n, dtype):
    """Alone, beside few or many: one register of matrices, two, and incomplete ones."""
    A = torch.randn(21, n, n, dtype=dtype, generator=torch.Generator().manual_seed(n))
    whole = function(A)
    whole = whole if isinstance(whole, tuple) else (whole,)
    for start, stop in ((0, 1), (5, 11), (3, 20), (20, 21)):
        part = function(A[start:stop])
        part = part if isinstance(part, tuple) else (part,)
        for x, y in zip(whole, part, strict=True):
            assert torch.equal(x[start:stop], y), (start, stop)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(8, 8), (20, 20), (40, 40), (300, 7), (16, 70), (3, 1)], ids=str)
def test_matrices_by_columns_give_the_same_bits(shape, dtype):
    """Maps seen as maps.flatten(2).mT, which are not copied (test_memory.py)."""
    maps = torch.randn(2, 19, *shape[::-1], dtype=dtype, generator=torch.Generator().manual_seed(1))
    maps[1, 3, 0, 0] = float("nan")
    A = maps.mT
    rows = A.contiguous()
    for options in ({}, {"compute_u": False}, {"canonical": False}, {"mode": "fast"}):
        pairs = zip(batched_svd(A, **options), batched_svd(rows, **options), strict=True)
        for x, y in pairs:
            assert x is y or (x.is_contiguous() and torch.equal(x.nan_to_num(9), y.nan_to_num(9)))
    assert torch.equal(batched_svdvals(A).nan_to_num(9), batched_svdvals(rows).nan_to_num(9))


@pytest.mark.parametrize("name", ISOLATION)
@pytest.mark.parametrize("bad_value", [float("nan"), float("inf")], ids=["nan", "inf"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_bad_matrix_spoils_itself_alone(backend, name, bad_value, dtype):
    function, shapes = ISOLATION[name]
    for shape in shapes:
        good = torch.randn(21, *shape, dtype=dtype)
        bad = good.clone()
        bad[5, -1, 0] = bad_value  # below the diagonal: eigh reads it
        good, bad = good.requires_grad_(), bad.requires_grad_()
        before, after = function(good), function(bad)
        before, after = ((r,) if torch.is_tensor(r) else r for r in (before, after))
        cotangents = [torch.randn_like(t) for t in before]
        before = (*before, *torch.autograd.grad(before, good, cotangents))
        after = (*after, *torch.autograd.grad(after, bad, cotangents))
        others = torch.arange(21) != 5
        for x, y in zip(before, after, strict=True):
            assert torch.equal(x[others], y[others]), shape
            assert y[5].isnan().all(), shape
