"""CRD against the published loop: values, gradients, memories, and that it goes on where it was."""

import pytest
import torch
from support.distiller_cases import leaf, same_loss_and_gradient
from torch.utils.data import DataLoader, TensorDataset

import kdops.distillers as kd
from kdops.training import Indexed, fit

N, K, T = 12, 5, 0.07


def made(**options):
    torch.manual_seed(0)
    return kd.CRD(4, 6, N, width=8, negatives=K, **options).double()


def published(memories, z, v_s, v_t, index, negatives):
    """Both losses, the new memories and normalisers, sample by sample."""
    chosen = torch.cat([index[:, None], negatives], 1)
    loss, scores = 0.0, []
    for v, memory in ((v_s, memories[1]), (v_t, memories[0])):
        rows = [[torch.exp((v[b] * memory[j]).sum() / T) for j in row] for b, row in
                enumerate(chosen.tolist())]  # fmt: skip
        scores.append(torch.stack([torch.stack(row) for row in rows]))
    z = [s.mean().detach() * N if old < 0 else old for s, old in zip(scores, z, strict=True)]
    for s, total in zip(scores, z, strict=True):
        for row in s / total:
            loss = loss - torch.log(row[0] / (row[0] + K / N + 1e-7)) / len(index)
            for p in row[1:]:
                loss = loss - torch.log((K / N) / (p + K / N + 1e-7)) / len(index)
    after = []
    for v, memory in zip((v_s, v_t), memories, strict=True):
        new = memory.clone()
        for b, j in enumerate(index.tolist()):
            row = 0.5 * memory[j] + 0.5 * v[b].detach()
            new[j] = row / row.square().sum().sqrt()
        after.append(new)
    return loss, after, z


def test_three_steps():
    method = made()
    memory = method.memories[0]
    memories, z = [memory.student.clone(), memory.teacher.clone()], [-1.0, -1.0]
    linear = [method.embed_student[0], method.embed_teacher[0]]
    for step in range(3):
        s, t = leaf(3, 4, seed=step), leaf(3, 6, seed=9 + step)
        index = torch.tensor([0, 7, 4]) + step
        negatives = torch.randint(N, (3, K))
        v = [f(x) for f, x in zip(linear, (s, t.detach()), strict=True)]
        v = [x / x.square().sum(1, keepdim=True).sqrt() for x in v]
        theirs, memories, z = published(memories, z, *v, index, negatives)
        ours = method(s, t, index, negatives=negatives)
        inputs = [s, linear[0].weight, linear[1].weight, linear[1].bias]
        same_loss_and_gradient(ours, theirs, inputs, tol=1e-9)
        torch.testing.assert_close(memory.student, memories[0])
        torch.testing.assert_close(memory.teacher, memories[1])
        torch.testing.assert_close(memory.normaliser, torch.stack(z))


def test_state_is_saved_and_rests_in_eval():
    method, other = made(), made()
    s, t, index = leaf(3, 4), leaf(3, 6, seed=1), torch.tensor([2, 3, 5])
    negatives = torch.randint(N, (3, K))
    method(s, t, index, negatives=negatives)
    other.load_state_dict(method.state_dict())
    for _ in range(2):
        ours, theirs = (m(s, t, index, negatives=negatives) for m in (method, other))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    before = {name: x.clone() for name, x in method.state_dict().items()}
    method.eval()(s, t, index, negatives=negatives)
    assert all(torch.equal(x, before[name]) for name, x in method.state_dict().items())
    fresh = made()
    assert fresh(s[:0], t[:0], index[:0]) == 0
    assert (fresh.memories[0].normaliser == -1).all()


def test_drawn_negatives_and_repeated_samples():
    method = made()
    s, t = leaf(4, 4), leaf(4, 6, seed=1)
    torch.manual_seed(3)
    first = method(s, t, torch.tensor([1, 1, 2, 2]))
    assert torch.isfinite(first)
    assert (method.memories[0].student.norm(dim=1) > 0).all()
    zero = method(0 * s, 0 * t, torch.arange(4))
    gradient = torch.autograd.grad(zero, method.embed_student[0].weight)[0]
    assert torch.isfinite(zero)
    assert torch.isfinite(gradient).all()
    maps = [x.detach()[..., None, None].expand(-1, -1, 2, 2) for x in (s, t)]
    method.eval()
    negatives = torch.zeros(4, 2).long()
    small = [x[:, :, :1] for x in maps]
    same = [
        method(*x, torch.arange(4), negatives=negatives)
        for x in (maps, (s, t), (maps[0], small[1]))
    ]
    torch.testing.assert_close(same, same[:1] * 3)


def test_indices_that_do_not_fit():
    method, s, t = made(), leaf(3, 4), leaf(3, 6, seed=1)
    good = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"CRD: needs index=.*int64 \[3\].*Indexed"):
        method(s, t)
    for wrong in (good[:2], good.float(), good[:, None], [0, 1, 2], good.to("meta")):
        with pytest.raises(ValueError, match=r"CRD: expected index of type int64 and shape \[B\]"):
            method(s, t, wrong)
    with pytest.raises(ValueError, match="CRD: expected negatives"):
        method(s, t, good, negatives=good)
    with pytest.raises(ValueError, match=r"index holds sample 12, the memory has 12; pass samples"):
        method(s, t, good + 10)
    with pytest.raises(ValueError, match=r"CRD: samples"):
        kd.CRD(4, 6, 0)
    with pytest.raises(TypeError, match="samples"):
        kd.CRD.from_sample(s, t)


def test_fit_says_which_samples(tmp_path):
    """With Indexed alone and in a sum; without it the error names the remedy."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.body(x))

    data = TensorDataset(torch.randn(N, 5), torch.arange(N) % 3)
    student, teacher = Net(), Net()
    crd = kd.CRD(4, 4, N, width=8, negatives=K)
    method = kd.WeightedSum({"kd": kd.SoftTarget(), "crd": crd}, {"crd": 0.8})
    before = crd.memories[0].student.clone()
    options = {"epochs": 2, "layers": (["body"], ["body"]), "progress": False}
    fit(student, teacher, method, DataLoader(Indexed(data), 4), **options)
    assert not (crd.memories[0].student == before).all(1).any()
    with pytest.raises(ValueError, match=r"CRD: the batch does not say which.*Indexed\(dataset\)"):
        fit(student, teacher, crd, DataLoader(data, 4), **options)
