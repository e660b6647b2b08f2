"""gather_batch over 2 and 3 gloo processes: values, gradients, unequal batches, DDP scaling."""

import functools

import pytest
import torch
import torch.distributed as dist
from support.processes import launch, whole_batch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import kdops.distillers as kd
from kdops.distributed import average_gradients, broadcast_state, gather_batch
from kdops.training import fit


def relation(x):
    """A loss of all pairs, so that every row's gradient depends on every other row."""
    gram = x @ x.T
    return (gram**2).mean() + gram.diagonal().exp().mean()


def check_gather(rank, world):
    x, slices = whole_batch(world)
    full = x.clone().requires_grad_()
    expected = relation(full)
    expected.backward()
    local = x[slices[rank]].clone().requires_grad_()
    gathered = gather_batch(local)
    torch.testing.assert_close(gathered, x)
    loss = relation(gathered)
    torch.testing.assert_close(loss, expected.detach())
    loss.backward()
    torch.testing.assert_close(local.grad, world * full.grad[slices[rank]])
    strided = x.T.contiguous().T[slices[rank]]
    torch.testing.assert_close(gather_batch(strided), x)


def check_ddp(rank, world):
    x, slices = whole_batch(world)
    torch.manual_seed(rank)
    net = nn.Linear(4, 4).double()
    broadcast_state(net)
    relation(net(x)).backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    ddp = DistributedDataParallel(net)
    relation(gather_batch(ddp(x[slices[rank]]))).backward()
    for p, g in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g)
    net.zero_grad()
    relation(gather_batch(net(x[slices[rank]]))).backward()
    average_gradients([p.grad for p in net.parameters()] + [None])
    for p, g in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g)


def check_subgroup(rank, world):
    group = dist.new_group([0, 1])
    if rank < 2:
        x = torch.full((rank + 1, 2), float(rank), requires_grad=True)
        gathered = gather_batch(x, group)
        assert gathered[:, 0].tolist() == [0.0, 1.0, 1.0]
        gathered.sum().backward()
        assert torch.equal(x.grad, torch.full_like(x, 2.0))


def fails_everywhere(function, *parts):
    """function raises here and in every other process; the message holds all parts."""
    with pytest.raises(RuntimeError) as caught:
        function()
    assert all(part in str(caught.value) for part in parts), caught.value
    dist.barrier()


def check_disagreement(rank, world):
    """Every process learns of it, whatever each of them brings, and the group works on."""
    plain = torch.randn(3, 4)
    for other, sides in [
        (plain.double(), ("float32 [rows, 4]", "float64 [rows, 4]")),
        (torch.randn(3, 5), ("[rows, 4]", "[rows, 5]")),
        (torch.randn(2, 6), ("[rows, 4]", "[rows, 6]")),
        (torch.randn(3, 2, 2), ("[rows, 4]", "[rows, 2, 2]")),
        (torch.tensor(1.0), ("[rows, 4]", "float32 []")),
        (torch.zeros(3, 4, device="meta"), ("on cpu", "on meta")),
        (plain.clone().requires_grad_(), ("without gradient", "with gradient")),
    ]:
        mine = other if rank == 1 else plain
        fails_everywhere(lambda x=mine: gather_batch(x), "gather_batch", *sides, "ranks [1]")
    halves = plain.half() if rank else plain.bfloat16()
    fails_everywhere(lambda: gather_batch(halves), "float16", "bfloat16")
    fails_everywhere(lambda: gather_batch(torch.tensor(1.0)), "batch dimension")

    grads = [torch.ones(2), None if rank else torch.ones(3)]
    fails_everywhere(
        lambda: average_gradients(grads), "gradient 1: float32 [3]", "None on ranks [1"
    )
    named = [torch.ones(2 + rank)]
    fails_everywhere(
        lambda: average_gradients(named, names=["fc.weight"]), "fc.weight: float32 [2]"
    )
    fails_everywhere(lambda: average_gradients([torch.ones(1)] * (1 + rank)), "gradient 1: nothing")
    net = nn.Linear(2, 2 + rank)
    fails_everywhere(lambda: broadcast_state(net), "broadcast_state", "weight: float32 [2, 2]")
    same = [torch.full((2,), float(rank)), None]
    average_gradients(same)
    torch.testing.assert_close(same[0], torch.full((2,), (world - 1) / 2))


def convolutions(width):
    maps = [nn.Conv2d(3, width, 3), nn.Tanh(), nn.Conv2d(width, width, 3)]
    return nn.Sequential(*maps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))


def fitted(batches, how, **options):
    """Student and method after two epochs; every process begins with other weights than the first
    where DDP is to take those."""
    torch.manual_seed(0)
    student, teacher = convolutions(4).double(), convolutions(6).double()
    method = kd.KDSVD([4, 4], [6, 6]).double()
    if how == "one module" and dist.get_rank():
        nn.init.zeros_(student[0].weight)
        nn.init.zeros_(next(method.parameters()))
    parameters = [*student.parameters(), *method.parameters()]
    student.register_parameter("unused", nn.Parameter(torch.zeros(2, dtype=torch.float64)))
    ddp = functools.partial(DistributedDataParallel, find_unused_parameters=True)
    net = ddp(student) if how == "student" else student
    wrap = ddp if how == "one module" else None
    fit(net, teacher, method, batches, epochs=2, layers=(["0", "2"], ["0", "2"]), wrap=wrap,
        optimizer=torch.optim.SGD(parameters, 0.1), progress=False, **options)  # fmt: skip
    return parameters


FIT_OPTIONS = [{}, {"accumulate": 2}, {"clip": True}, {"clip": {"per": "global", "every": 2}}]


def check_fit(rank, world):
    """fit of a process per half of every batch is that of one process with the batches."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, 4, 3, 8, 8, generator=generator, dtype=torch.float64)
    whole = [(x, torch.arange(4)) for x in images]
    half = slice(2 * rank, 2 * rank + 2)
    mine = [(x[half], y[half]) for x, y in whole]
    for options in FIT_OPTIONS:
        expected = fitted(whole, "alone", **options)
        for how in ("student", "one module"):
            for a, b in zip(fitted(mine, how, **options), expected, strict=True):
                torch.testing.assert_close(a, b, msg=lambda m, how=how, o=options: f"{how} {o} {m}")


def own_parameters(method):
    return {name: p for name, p in method.named_parameters() if p.requires_grad}


def check_method_parameters(rank, world):
    """Only the student is in DDP: the method's parameters start and stay the same everywhere."""
    maps = [
        torch.randn(4, c, 4, 4, generator=torch.Generator().manual_seed(rank + c)) for c in (3, 5)
    ]
    student, teacher = maps
    whole = {}
    for scope in ("alone", "inside"):
        torch.manual_seed(rank)  # every process draws its own first values
        method = kd.WeightedSum({"vid": kd.VID([3], [5]), "fit": kd.FitNet((3, 4, 4), (5, 4, 4))})
        run = DistributedDataParallel(method) if scope == "inside" else method
        optimizer = torch.optim.SGD(own_parameters(method).values(), 0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            for part in (slice(0, 2), slice(2, 4)):  # gradients accumulate
                run([student[part]], [teacher[part]]).backward()
            optimizer.step()
        for name, p in own_parameters(method).items():
            parts = [torch.empty_like(p) for _ in range(world)]
            dist.all_gather(parts, p.detach())
            assert all(torch.equal(part, parts[0]) for part in parts), (scope, name)
            torch.testing.assert_close(p, whole.setdefault(name, p))  # what DDP does, exactly
    private = kd.VID([3], [5])
    private.synchronise = None
    if rank == 0:  # some of the processes only: nobody waits
        private([student], [teacher]).backward()
    with torch.no_grad():
        method([student], [teacher]) if rank == 0 else None


@pytest.mark.parametrize("check", [check_disagreement, check_method_parameters, check_fit])
def test_two_processes(check, tmp_path):
    launch(check, 2, tmp_path)


@pytest.mark.parametrize("world", [2, 3])
def test_gather(world, tmp_path):
    launch(check_gather, world, tmp_path)


@pytest.mark.parametrize("world", [2])
def test_ddp_scaling(world, tmp_path):
    launch(check_ddp, world, tmp_path)


def test_subgroup(tmp_path):
    launch(check_subgroup, 3, tmp_path)


def test_no_process_group():
    x = torch.randn(3, 2, requires_grad=True)
    assert gather_batch(x) is x
    grads = [torch.ones(2)]
    average_gradients(grads)
    assert torch.equal(grads[0], torch.ones(2))
