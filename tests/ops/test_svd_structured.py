"""Graded and nearly diagonal matrices: every value, its vectors and their gradient have the digits
that the matrix itself defines, down to values of eps times the largest.
"""

import pytest
import torch
from support.svd_inputs import relative, with_values

import kdops
from kdops import batched_eigh, batched_svd

COUPLINGS = [1e-2, 1e-4, 1e-6, 1e-9, 1e-14]
EPS = torch.finfo(torch.float32).eps


@pytest.fixture(autouse=True)
def native():
    with kdops.backend("native"):
        yield


def graded(n, coupling):
    """Diagonal .45^i, and `coupling` times the entry beside it above: exact in float32."""
    diagonal = 0.45 ** torch.arange(n, dtype=torch.float64)
    A = diagonal.diag() + coupling * diagonal[:-1].diag(1)
    return A.float().double()


def symmetric(A):
    return A.tril() + A.tril(-1).mT


def svd_of(A):
    _, S, Vh = batched_svd(A)
    return S, Vh


def eigh_of(A):
    values, vectors = batched_eigh(symmetric(A.mT))
    return values.flip(-1), vectors.mT.flip(-2)


def exact_svd(A):
    return torch.linalg.svd(A)[1:]


def exact_eigh(A):
    values, vectors = torch.linalg.eigh(symmetric(A.mT))
    return values.flip(-1), vectors.mT.flip(-2)


DECOMPOSITIONS = pytest.mark.parametrize(
    ("ours", "exact"), [(svd_of, exact_svd), (eigh_of, exact_eigh)], ids=["svd", "eigh"]
)


def gradient_of(decompose, A, count):
    """Of a loss on the values and, sign by sign, on the vectors of the `count` largest."""
    g = torch.Generator().manual_seed(0)
    n = A.shape[-1]
    weight = torch.randn(count, n, n, generator=g, dtype=torch.float64).to(A)
    A = A.clone().requires_grad_()
    values, rows = decompose(A)
    rows = rows[..., :count, :]
    loss = values.sum() + torch.einsum("ki,kij,kj->", rows, weight, rows)
    return torch.autograd.grad(loss, A)[0]


@DECOMPOSITIONS
@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("n", [4, 9, 16, 24, 40])
def test_graded_matrices(ours, exact, n, coupling):
    """Far below eps * s_1 / gap, which is all that a dense matrix would allow."""
    A = graded(min(n, 20), coupling)
    if n > 20:  # several gradings side by side, as blocks of a larger order are treated apart
        A = torch.block_diag(A, 0.7 * A[: n - 20, : n - 20])
    values, rows = (x.double() for x in ours(A.float()))
    expected, vectors = exact(A)
    assert ((values - expected).abs() <= 20 * EPS * expected.abs()).all()
    turned = (rows * vectors).sum(-1, keepdim=True).sign() * vectors
    assert ((rows - turned).norm(dim=-1) <= 100 * EPS).all()
    count = min(n, 9)
    found = gradient_of(ours, A.float(), count).double()
    assert relative(found, gradient_of(exact, A, count)) <= 1e-5


@DECOMPOSITIONS
@pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3, 1e-4])
def test_dense_matrices(ours, exact, gap):
    """The bound of docs/svd.md, 20 eps s_1 / gap: a rounding error of A itself does as much."""
    g = torch.Generator().manual_seed(3)
    values = torch.tensor([2, 1 + gap, 1, 0.7, 0.5, 0.2, 0.1, 0.01])
    A = torch.stack([with_values(values, 8, 8, g) for _ in range(4)])
    A = torch.cat([A, A @ A.mT]).float().double()
    for matrix in A:
        found = gradient_of(ours, matrix.float(), 3).double()
        values = exact(matrix)[0][:4]
        bound = 20 * EPS * values[0].abs() / values.diff().abs().min()
        assert relative(found, gradient_of(exact, matrix, 3)) <= bound
