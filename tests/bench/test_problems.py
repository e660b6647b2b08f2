"""What the benchmarks compare: plain forms that are the published ones, floors, modes."""

import pytest
import torch

from benchmarks.cases import floors
from benchmarks.measure import harness
from benchmarks.published import gram, rbf, relation, svd
from kdops.testing import relative_error


def _gradients(function, arguments):
    leaves = [a.clone().requires_grad_(i < len(arguments) // 2) for i, a in enumerate(arguments)]
    loss = function(*leaves).sum()
    return [loss, *torch.autograd.grad(loss, leaves[: len(arguments) // 2])]


ROWS = [(20, 12)] * 2


PLAIN = {
    "distance": (relation.rkd_distance_cdist, relation.rkd_distance, ROWS),
    "angle": (relation.rkd_angle_gram, relation.rkd_angle, ROWS),
    "similarity": (relation.similarity_covariance, relation.similarity, ROWS),
    "fsp": (gram.fsp_loss_fused, gram.fsp_loss, [(3, 8, 4, 4)] * 4),
    "svd rbf": (rbf.svd_rbf_gemm, rbf.svd_rbf_broadcast, [(3, 16, 2), (3, 24, 2)] * 2),
}


@pytest.mark.parametrize("name", PLAIN)
def test_best_plain_form_is_the_published_loss(name):
    """A baseline that computed something else would make every comparison with it worthless."""
    plain, published, shapes = PLAIN[name]
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    if name == "svd rbf":
        values = [v / v.abs().amax() for v in values]
    pairs = zip(_gradients(plain, values), _gradients(published, values), strict=True)
    for ours, theirs in pairs:
        assert relative_error(ours.reshape_as(theirs), theirs) < 1e-9


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
def test_decomposition_by_gram(shape):
    A = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    U, S, Vh = svd.full_by_gram(A)
    assert relative_error(U * S.unsqueeze(-2) @ Vh, A) < 1e-12
    for values in (S, svd.values_by_gram(A)):
        assert relative_error(values, torch.linalg.svdvals(A)) < 1e-9


def test_floors_are_those_of_the_plan():
    """The figures worked out by hand: 27 MB and 0.21 GF for the 4 largest of 128 49x512."""
    moved, flop = floors.top(49, 512, 4, 128)["forward"]
    assert (moved / 1e6, flop / 1e9) == (pytest.approx(27, rel=0.02), pytest.approx(0.21, rel=0.05))
    moved, flop = floors.top(1024, 16, 4, 128)["forward"]
    assert (moved / 1e6, flop / 1e9) == (
        pytest.approx(8.4, abs=0.1),
        pytest.approx(0.035, abs=1e-3),
    )
    assert floors.svd(64, 64, 128)["forward"][0] == pytest.approx(6.3e6, rel=0.02)
    assert floors.angle(1024, 512)["both"][1] == pytest.approx(22 * 2**30)


BACKWARD = {
    "svd top 4, S and V 256x32", "svd, S and product 256x32", "gram (128; 64,64; 16x16)",
    "fsp_loss (128; 256,256; 8x8)", "rkd_angle_loss N=128 D=512", "rkd_distance_loss N=128 D=512",
    "svd_rbf_loss (128; 64,256; 4) vectors", "rbf_affinity (512, 128)",
    "nst_loss (64; 256, 8x8)", "attention_loss (128; 256, 8x8)", "pairwise_distance N=256 D=512",
}  # fmt: skip


COMPILED = BACKWARD - {"svd, S and product 256x32", "pairwise_distance N=256 D=512"} | {
    "similarity_loss N=512 D=128"
}


def test_main_cases_have_a_backward_mode_and_a_compiled_form(problems):
    separate = {p.name for p in problems if "backward" in p.modes}
    assert {f"{name} float32" for name in BACKWARD} <= separate
    compiled = {p.name for p in problems if any(n.startswith("torch.compile") for n in p.providers)}
    assert {f"{name} float32" for name in COMPILED} <= compiled
    quick = [
        case.values
        for case in harness.parametrise(problems)
        if not any(mark.name == "slow" for mark in case.marks)
    ]
    assert quick
    assert not any(mode == "backward" or "compile" in name for _, name, mode in quick)
