"""Peak memory of the losses whose published forms run out of it: forward and backward."""

import sys

import pytest
import torch
from support.new_process import peak_growth_mb

from kdops._library import missing

pytestmark = [
    pytest.mark.skipif(missing is not None, reason=str(missing)),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status"),
]

# What makes inputs of given sizes, and the step; CASES adds small sizes, large ones, limit in MB.
RKD = (
    "s, t = torch.randn({0}, {1}, requires_grad=True), torch.randn({0}, {1})",
    "(25 * kdops.rkd_distance_loss(s, t) + 50 * kdops.rkd_angle_loss(s, t)).backward()",
)
RBF = (
    "s, t = torch.randn({0}, {1}, requires_grad=True), torch.randn({0}, {1})",
    "kdops.rbf_affinity_loss(s, t, gamma=0.05).backward()",
)
SVD_RBF = (
    "v = [torch.randn({0}, d, {3}) / {0} for d in ({1}, {2}) * 2];"
    "v[0].requires_grad_(); v[1].requires_grad_()",
    "kdops.svd_rbf_loss(*v).backward()",
)
NST = (
    "s, t = torch.randn({0}, {1}, {2}, {2}, requires_grad=True), torch.randn({0}, {1}, {2}, {2})",
    "kdops.nst_loss(s, t).backward()",
)
FSP = (
    "s, t = ([torch.randn({0}, c, {3}, {3}) for c in ({1}, {2})] for _ in range(2));"
    "s = [f.requires_grad_() for f in s]; t = list(t)",
    "kdops.fsp_loss(s, t).backward()",
)
KL = (
    "s, t = torch.randn({0}, {1}, requires_grad=True), torch.randn({0}, {1})",
    "kdops.similarity_kl_loss(s, t, temperature=0.1).backward()",
)
PKT = (
    "from kdops.ops.similarity_kl import pkt_loss;"
    "s, t = torch.randn({0}, {1}, requires_grad=True), torch.randn({0}, {1})",
    "pkt_loss(s, t).backward()",
)
ANCHORING = (
    "s, t = torch.randn({0}, {1}, {2}, requires_grad=True), torch.randn({0}, {1}, {3})",
    "kdops.gram_anchoring_loss(s, t, negatives='drop').backward()",
)
SVDVALS = ("m = torch.randn({0}, {1}, {2})", "kdops.batched_svdvals(m.mT)")
CASES = {
    "svdvals of maps": (*SVDVALS, (8, 16, 64), (1000, 16, 1024), 20),  # their copy by rows: 66 MB
    "rkd": (*RKD, (64, 2048), (1024, 2048), 500),  # published: 51 GB
    "rbf_affinity_loss": (*RBF, (64, 16), (20_000, 16), 300),  # N x N: 1.6 GB
    "similarity_kl_loss": (*KL, (64, 128), (4096, 128), 40),  # a GEMM form: 5 N x N, 335 MB
    "pkt_loss": (*PKT, (64, 32), (20_000, 32), 60),  # N x N: 1.6 GB
    "svd_rbf_loss": (*SVD_RBF, (1, 2, 2, 1), (32, 512, 1024, 8), 40),  # B x D x D' x k: 537 MB
    "gram_anchoring_loss": (*ANCHORING, (1, 8, 8, 8), (8, 1369, 384, 1024), 60),  # N x N: 480 MB
    "nst_loss": (*NST, (1, 8, 7), (8, 2048, 7), 300),  # B x C x C x L: 6.6 GB
    "fsp_loss": (*FSP, (2, 8, 8, 7), (64, 256, 512, 28), 200),  # B x C1 x C2 x L: 26 GB
}


def growth(inputs, step, small, large):
    return peak_growth_mb(f"{inputs.format(*small)}; {step}", inputs.format(*large), step)


def test_the_measure_sees_an_allocation():
    """Also when the process that asks has held more."""
    held = torch.ones(100 << 18)  # 100 MB
    grown = peak_growth_mb("torch.ones(8)", "", "torch.ones(50 << 18)")
    assert 45 < grown < 60, held.shape


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_peak_memory(name):
    *problem, limit_mb = CASES[name]
    assert growth(*problem) < limit_mb


@pytest.mark.slow
def test_peak_memory_of_the_rbf_loss_grows_with_the_rows_only():
    """N x N would be 17 GB; inputs, gradient and norms are 13 MB."""
    assert growth(*RBF, (64, 16), (65_536, 16)) < 50


@pytest.mark.slow
def test_peak_memory_of_the_similarity_kl_grows_with_the_rows_only():
    """N x N would be 17 GB."""
    assert growth(*KL, (64, 64), (65_536, 64)) < 300
