"""gram_loss and nst_loss on a GPU: every route of csrc/gram/loss_launch.cuh.

The contract runs there too (pytest tests/test_contract.py --device cuda). To try the tests
themselves where there is no GPU, take the mark off and set DEVICE to "cpu".
"""

import pytest
import torch
from support.cuda_graphs import captured

from kdops.ops.gram import gradient, reference

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("native_on_a_gpu")]

DTYPES = [torch.float32, torch.float64]
# channels, positions of student and teacher: split and whole, each tile, by positions
SIZES = [
    ((16, 16), (16, 16), (14, 14)),
    ((64, 48), (8, 8), (8, 8)),
    ((100, 129), (9, 7), (5, 3)),
    ((256, 200), (7, 7), (7, 7)),
    ((1, 3), (1, 1), (1, 1)),
]
VARIANTS = ["squares", "columns", "positions"]


def arguments(dtype, sizes, variant, *, symmetric=False, batch=5, grad=True):
    """Of kdops::gram_loss, the student channels_last."""
    (c1, c2), student, teacher = sizes
    by_positions = variant == "positions"
    if by_positions:
        teacher = student
    generator = torch.Generator().manual_seed(0)
    x1, x2, y1, y2 = (
        torch.randn(batch, c, *size, dtype=torch.float64, generator=generator).to(DEVICE, dtype)
        for c, size in ((c1, student), (c2, student), (c1, teacher), (c2, teacher))
    )
    x1, x2 = (x.to(memory_format=torch.channels_last) for x in (x1, x2))
    second = (None, None) if symmetric else (x2, y2)
    return x1, second[0], y1, second[1], number(variant), by_positions, grad


def number(variant):
    return reference.COLUMNS if variant == "columns" else reference.MSE


def exact(arguments):
    """Loss and cotangents in float64 on the CPU."""
    cpu = [a.cpu().double() if torch.is_tensor(a) else a for a in arguments]
    return reference.gram_loss(*cpu[:5]), *gradient.gram_loss_gradients(*cpu[:5])


def step(arguments):
    return torch.ops.kdops.gram_loss(*arguments)


def check(actual, expected, dtype):
    bound = 2e-5 if dtype == torch.float32 else 1e-12
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert a.dtype == dtype
        if e.numel():
            assert (a.cpu().double() - e).abs().max() <= bound * e.abs().max()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("batch", [1, 5, 300])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_loss_and_gradients(sizes, variant, dtype, batch, symmetric):
    call = arguments(dtype, sizes, variant, symmetric=symmetric, batch=batch)
    if variant == "positions" and call[0].shape[1] < call[0][0, 0].numel():
        pytest.skip("through positions only where they are fewer than channels")
    actual = step(call)
    check(actual, exact(call), dtype)
    again, alone = step(call), step((*call[:-1], False))
    assert all(torch.equal(a, b) for a, b in zip(actual, again, strict=True))
    assert torch.equal(alone[0], actual[0])
    assert [g.numel() for g in alone[1:]] == [0, 0]


@pytest.mark.parametrize("batch", [1, 300])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_maps_have_exactly_no_loss(variant, batch):
    """Two equal sums are subtracted as they are: no product is fused into the subtraction."""
    x1, x2, *_ = arguments(torch.float32, SIZES[1], variant, batch=batch)
    call = (x1, x2, x1, x2, number(variant), variant == "positions", True)
    for result in step(call):
        assert (result == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize(("channels", "length"), [(256, 49), (33, 64), (16, 100), (1, 3)])
def test_nst_loss(channels, length, positions, dtype):
    student, teacher = (
        torch.randn(7, channels, length, dtype=dtype, device=DEVICE) for _ in range(2)
    )
    student[2, 0], teacher[3] = 0, 0
    loss, pull = torch.ops.kdops.nst_loss(student, teacher, positions, True)
    on_cpu = student.cpu().double(), teacher.cpu().double()
    expected = reference.nst_loss(*on_cpu), gradient.nst_gradient(*on_cpu)
    check((loss, pull), expected, dtype)
    assert (pull[2, 0] == 0).all()
    alone, nothing = torch.ops.kdops.nst_loss(student, teacher, positions, False)
    assert torch.equal(alone, loss)
    assert nothing.numel() == 0


def test_without_gradients_nothing_of_size_c1_c2_is_stored():
    if DEVICE != "cuda":
        pytest.skip("peak memory is that of the GPU")
    call = arguments(torch.float32, SIZES[1], "squares", batch=300, grad=False)
    step(call)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(call)
    assert torch.cuda.max_memory_allocated() - before < 300 * 64 * 48


def nst_step(call):
    student, teacher = call[0].flatten(2), call[2].flatten(2)
    if teacher.shape != student.shape:
        teacher = student.flip(1) + 1
    both = (torch.ops.kdops.nst_loss(student, teacher, by, True) for by in (False, True))
    return [t for results in both for t in results]


@pytest.mark.parametrize("function", [step, nst_step])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sizes", SIZES[:3], ids=str)
def test_in_a_cuda_graph(sizes, variant, function):
    """Captured without a synchronisation, replayed on other numbers."""
    if DEVICE != "cuda":
        pytest.skip("there are no graphs on the CPU")
    call = arguments(torch.float32, sizes, variant)
    graph, results = captured(lambda: function(call))
    call[0].copy_(torch.randn(call[0].shape))
    graph.replay()
    for a, b in zip(results, function(call), strict=True):
        assert torch.equal(a, b)
