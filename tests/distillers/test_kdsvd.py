"""KD-SVD: transcription in float64 with torch.linalg.svd, and the invariances it must have."""

from itertools import pairwise

import pytest
import torch
from support.distiller_cases import same_loss_and_gradient
from support.graph_methods import STUDENT, sample, vectors

import kdops
import kdops.distillers as kd
from kdops.ops.rbf import svd_rbf_loss


def rbf(front, back, c):
    return torch.exp(-((back[:, c][:, None] - front[:, c][None, :]) ** 2) / 8.0)


def transcription(s, t, k, variant="mean", projected=False):
    batch, total = s[0].shape[0], 0.0
    for b in range(batch):
        pairs = [vectors(x[b], y[b], k, projected) for x, y in zip(s, t, strict=True)]
        for (s_f, t_f), (s_b, t_b) in pairwise(pairs):
            for c in range(k):
                total = total + ((rbf(s_f, s_b, c) - rbf(t_f, t_b, c)) ** 2).sum()
    return total * {"mean": 1 / batch, "sum": 1.0, "paper": 0.5 * k**0.5}[variant]


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("variant", ["mean", "sum", "paper"])
def test_with_a_decomposition_of_the_student(k, variant):
    s, t = sample()
    ours = kd.KDSVD(k=k, variant=variant)(s, t)
    same_loss_and_gradient(ours, transcription(s, t, k, variant), s, tol=1e-7)


@pytest.mark.parametrize("k", [1, 2])
def test_projection_on_the_teacher(k):
    s, t = sample(teacher=STUDENT)
    ours = kd.KDSVD(k=k, student_svd=False)(s, t)
    same_loss_and_gradient(ours, transcription(s, t, k, projected=True), s, tol=1e-8)


def test_weights_and_connector():
    s, t = sample()
    first, second = kd.KDSVD()(s[:2], t[:2]), kd.KDSVD()(s[1:], t[1:])
    torch.testing.assert_close(kd.KDSVD(weights=[0.5, 2.0])(s, t), 0.5 * first + 2 * second)
    method = kd.KDSVD.from_sample([s[0], s[2]], [t[0], t[1]])
    assert isinstance(method.connectors[0], torch.nn.Identity)
    conv = method.connectors[1][0]
    mapped = torch.einsum("oc,bchw->bohw", conv.weight[..., 0, 0], s[2])
    theirs = transcription([s[0], mapped], [t[0], t[1]], 1)
    ours = method([s[0], s[2]], [t[0], t[1]])
    same_loss_and_gradient(ours, theirs, [s[0], s[2], conv.weight], tol=1e-7)


@pytest.mark.parametrize("k", [1, 3])
class TestInvariances:
    def test_spatial_permutation_of_the_student(self, k):
        s, t = sample()
        loss = kd.KDSVD(k=k)(s, t)
        shuffled = [x.flatten(2)[:, :, torch.randperm(x[0, 0].numel())].view_as(x) for x in s]
        torch.testing.assert_close(kd.KDSVD(k=k)(shuffled, t), loss)

    @pytest.mark.parametrize("c", [-1.0, 1e-6, -3e5])
    def test_scale_of_the_student(self, k, c):
        s, t = sample()
        loss = kd.KDSVD(k=k)(s, t)
        torch.testing.assert_close(kd.KDSVD(k=k)([s[0], c * s[1], s[2]], t), loss)

    @pytest.mark.parametrize("level", [0, 1, 2])
    def test_sign_of_a_teacher_level(self, k, level):
        s, t = sample()
        loss = kd.KDSVD(k=k)(s, t)
        flipped = [-x if i == level else x for i, x in enumerate(t)]
        torch.testing.assert_close(kd.KDSVD(k=k)(s, flipped), loss)

    def test_joint_channel_permutation(self, k):
        s, t = sample()
        loss = kd.KDSVD(k=k)(s, t)
        order = torch.randperm(6)
        permuted = kd.KDSVD(k=k)([s[0], s[1][:, order], s[2]], [t[0], t[1][:, order], t[2]])
        torch.testing.assert_close(permuted, loss)

    def test_equal_maps_cost_nothing(self, k):
        _, t = sample()
        assert kd.KDSVD(k=k)(t, t) < 1e-20


def test_signs_of_the_library_would_matter():
    """What canonical signs protect from: flipping one level's teacher vectors changes the loss."""
    s, t = ([x.abs() for x in side] for side in sample())  # as after a ReLU
    (s_0, t_0), (s_1, t_1), _ = kd.KDSVD().vectors(s, t)
    usual = svd_rbf_loss(s_0, s_1, t_0, t_1)
    follow = svd_rbf_loss(s_0, -s_1, t_0, -t_1)
    assert abs(float(follow.detach() / usual.detach()) - 1) > 0.05


def test_reference_backend_agrees():
    s, t = sample(batch=8)
    ours = kd.KDSVD(k=2)(s, t)
    with kdops.backend("reference"):
        plain = kd.KDSVD(k=2)(s, t)
    same_loss_and_gradient(ours, plain, s, tol=1e-7)


@pytest.mark.parametrize("student_svd", [True, False])
def test_one_zero_sample_leaves_the_others(student_svd):
    s, t = sample(teacher=STUDENT)
    method = kd.KDSVD(student_svd=student_svd, variant="sum")
    alone = torch.autograd.grad(method([x[1:] for x in s], [y[1:] for y in t]), s)
    zeroed = [torch.cat([torch.zeros_like(x[:1]), x[1:]]).detach().requires_grad_() for x in s]
    gradients = torch.autograd.grad(method(zeroed, t), zeroed)
    for g, expected in zip(gradients, alone, strict=True):
        assert torch.isfinite(g).all()
        torch.testing.assert_close(g[1:], expected[1:], rtol=1e-7, atol=1e-10)


def test_messages():
    s, t = sample()
    with pytest.raises(ValueError, match=r"KDSVD: level 1: the student has 6 channels and the te"):
        kd.KDSVD()(s, [t[0], t[2], t[1]])
    with pytest.raises(ValueError, match="at least 2 levels, got 1"):
        kd.KDSVD()(s[:1], t[:1])
    with pytest.raises(ValueError, match=r"level 0: k=6 singular vectors.*only 5 and 5"):
        kd.KDSVD(k=6)(s, t)
    with pytest.raises(ValueError, match=r"level 0: .*equal positions.*\[3, 5, 4, 4\]"):
        kd.KDSVD(student_svd=False)(s, t)
    with pytest.raises(ValueError, match="or neither"):
        kd.KDSVD([5, 6, 7])
