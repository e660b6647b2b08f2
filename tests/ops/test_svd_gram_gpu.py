"""The Gram route of the full SVD on a GPU: matrices on either side of its rule (gram_rule.h)."""

import pytest
import torch
from support.cuda_graphs import on_cpu
from support.svd_inputs import (
    errors_of_full,
    failures,
    gate,
    gauge_invariant_loss,
    gradients_of,
    relative,
    stacked,
    two_clusters,
    with_values,
)

import kdops
from kdops import batched_svd

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("native_on_a_gpu")]

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(48, 32), (1024, 16), (16, 200)], ids=str)
def test_accuracy_where_many_values_are_small(shape, dtype):
    """Some go through a Gram matrix, some are refused there."""
    matrices = two_clusters(dtype, *shape, min(shape) // 2)
    A = stacked(matrices)
    errors = errors_of_full(A, *on_cpu(batched_svd(A.to(DEVICE))))
    assert not failures(matrices, errors, gate(dtype, *shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(60, 2), (40, 3), (60, 8)], ids=str)
def test_accuracy_where_one_value_is_small(shape, dtype):
    matrices = two_clusters(dtype, *shape, 1, copies=2)
    A = stacked(matrices)
    errors = errors_of_full(A, *on_cpu(batched_svd(A.to(DEVICE))))
    assert not failures(matrices, errors, gate(dtype, *shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(48, 20), (1024, 16), (16, 90)], ids=str)
def test_gradients_on_either_side_of_the_gram_matrix(shape, dtype):
    """A batch of which the Gram route takes every other matrix; QR takes the rest."""
    g, r = torch.Generator().manual_seed(7), min(shape)
    values = 1 + torch.arange(r, 0, -1, dtype=torch.float64) / 4
    small = values * (torch.arange(r) < r - 1) + 0.01 * (torch.arange(r) == r - 1)
    A = torch.stack([with_values(v, *shape, g) for v in (values, small, values, small)])
    loss, parts = gauge_invariant_loss(shape, 5), ["USV", "SV", "V", "U"]
    with kdops.backend("reference"):
        expected = gradients_of(batched_svd, A, loss, parts)
    actual = gradients_of(batched_svd, A.to(DEVICE, dtype), loss, parts)
    for part, a, e in zip(parts, actual, expected, strict=True):
        assert relative(a.cpu().double(), e) <= 4 * gate(dtype, *shape), part
