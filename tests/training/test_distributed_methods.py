"""Methods over 2 and 3 gloo processes: group= gives the loss and gradient of the global batch."""

import functools

import pytest
import torch
from support.processes import ROWS, check_states_agree, launch, whole_batch

import kdops.distillers as kd


def check_methods(rank, world):
    """Loss and gradient of every relational method equal those of one process with all samples."""
    generator = torch.Generator().manual_seed(4)
    maps = [(4, 3, 3), (6, 3, 3)]
    n, slices = sum(ROWS[world]), whole_batch(world)[1]

    def features():
        return [torch.randn(n, *m, generator=generator, dtype=torch.float64) for m in maps]

    student, teacher = features(), features()
    here = slices[rank]
    for make in (kd.RKD, kd.SimilarityPreserving, relational_mhgd, relational_iep, *RELATIONS):
        torch.manual_seed(0)
        single, spread = make(), make(group="world")
        if hasattr(single, "prepare"):
            single.prepare([teacher], epochs=2)
            torch.manual_seed(rank)  # the group must agree whatever the local random state
            spread.prepare([[t[here] for t in teacher]], epochs=2)
            check_states_agree(spread, world)
            spread.load_state_dict(single.state_dict())
        whole = [x.clone().requires_grad_() for x in student]
        local = [x[here].clone().requires_grad_() for x in student]
        expected = single(whole, teacher)
        loss = spread(local, [t[here] for t in teacher])
        torch.testing.assert_close(loss, expected)
        expected.backward()
        loss.backward()
        for a, b in zip(local, whole, strict=True):
            torch.testing.assert_close(a.grad, world * b.grad[here])


RELATIONS = (
    *(kd.CC, functools.partial(kd.CC, exact=True), kd.RSD, kd.IRG, kd.DarkRank),
    *(kd.CKA, kd.Procrustes, functools.partial(kd.GramAnchoring, per="batch")),
)


def check_logits_and_memories(rank, world):
    """Relations of logits over the global batch, and CRD's memories, which see all samples."""
    generator = torch.Generator().manual_seed(3)
    n, slices = sum(ROWS[world]), whole_batch(world)[1]
    z_s, z_t = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    here = slices[rank]
    for make in (kd.DIST, kd.MLKD, kd.SKDDirection):
        whole, local = z_s.clone().requires_grad_(), z_s[here].clone().requires_grad_()
        expected, loss = make()(whole, z_t), make(group="world")(local, z_t[here])
        torch.testing.assert_close(loss, expected)
        expected.backward()
        loss.backward()
        torch.testing.assert_close(local.grad, world * whole.grad[here])
    torch.manual_seed(rank)
    method = kd.CRD(5, 5, n, width=4, negatives=3, group="world").double()
    before = None
    for _ in range(2):
        method(z_s[here].clone().requires_grad_(), z_t[here], torch.arange(n)[here]).backward()
        check_states_agree(method, world)
        rows = method.memories[0].student.clone()
        assert before is None or not (rows == before).all(1).any()
        before = rows


def relational_mhgd(**options):
    return kd.MHGD([4, 6], [4, 6], heads=2, **options).double()


def relational_iep(**options):
    return kd.IEP([4, 6], [4, 6], black_box=True, heads=2, **options).double()


@pytest.mark.parametrize("world", [2, 3])
def test_relational_methods(world, tmp_path):
    launch(check_methods, world, tmp_path)


@pytest.mark.parametrize("world", [2, 3])
def test_relations_of_logits_and_memories(world, tmp_path):
    launch(check_logits_and_memories, world, tmp_path)
