"""What is special to the relation ops: few and many rows, arguments, modes, instruction sets."""

import pytest
import torch
from support.new_process import run_python
from support.relation_losses import (
    BACKENDS,
    LOSSES,
    RKD,
    check,
    native,
    value_and_grad,
)

import kdops
from kdops.ops.relation import gradient, reference
from kdops.testing import relative_error


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_few_rows(backend, function, n):
    with kdops.backend(backend):
        loss, grad = value_and_grad(function, torch.randn(n, 3), torch.randn(n, 4))
    assert loss.isfinite()
    assert grad.isfinite().all()
    if n < 2 or function is not kdops.similarity_loss:
        assert loss <= 1e-12


@native
@pytest.mark.parametrize("function", RKD)
@pytest.mark.parametrize("n", [129, 300])
def test_many_rows(function, n):
    """More rows than a block of anchors, a strip of pairs and a chunk of the reference."""
    student, teacher = torch.randn(n, 12), torch.randn(n, 6)
    check(function, student, teacher, 2e-5)


@native
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("n", "d"), [(15, 33), (17, 240), (31, 65), (65, 64), (95, 130)])
@pytest.mark.parametrize("function", LOSSES)
def test_edges_of_tiles(function, n, d, dtype):
    """Rows and columns that leave tiles, strips and blocks of anchors partly filled."""
    student, teacher = torch.randn(n, d, dtype=dtype), torch.randn(n, 7, dtype=dtype)
    loss, grad = value_and_grad(function, student, teacher)
    with kdops.backend("reference"):
        exact = value_and_grad(function, student.double(), teacher.double())
    limit = 1e-11 if dtype == torch.float64 else 2e-5
    assert relative_error(loss, exact[0]) <= limit
    assert relative_error(grad, exact[1]) <= limit


def test_reference_in_chunks(monkeypatch):
    student, teacher = torch.randn(7, 3).double(), torch.randn(7, 4).double()
    whole = value_and_grad(reference.rkd_angle_loss, student, teacher)
    formula = gradient.rkd_angle_gradient(student, teacher)
    monkeypatch.setattr(reference, "CHUNK_ELEMENTS", 3 * 7 * 7)
    parts = value_and_grad(reference.rkd_angle_loss, student, teacher)
    for a, b in zip(whole, parts, strict=True):
        assert relative_error(a, b) <= 1e-13
    assert relative_error(gradient.rkd_angle_gradient(student, teacher), formula) <= 1e-13
    student.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda s: reference.rkd_angle_loss(s, teacher), (student,))


@pytest.mark.parametrize("function", RKD)
def test_normalize(function):
    student, teacher = torch.randn(9, 5), torch.randn(9, 7)
    student[2] = 0
    expected = function(*(torch.nn.functional.normalize(x, dim=1) for x in (student, teacher)))
    loss, grad = value_and_grad(lambda s, t: function(s, t, normalize=True), student, teacher)
    assert relative_error(loss, expected) <= 1e-5
    assert grad.isfinite().all()
    assert (grad[2] == 0).all()


def test_teacher_is_a_constant():
    student, teacher = (torch.randn(5, 3, requires_grad=True) for _ in range(2))
    for function in LOSSES:
        assert (
            torch.autograd.grad(function(student, teacher), teacher, allow_unused=True)[0] is None
        )


@pytest.mark.parametrize("function", [kdops.pairwise_distance, kdops.rbf_affinity])
def test_batched_gradients_of_the_reference(function):
    """is_grads_batched maps its gradient by a vmap that knows few operators."""
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    with kdops.backend("reference"):
        assert torch.autograd.gradcheck(function, x, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(function, x, check_batched_grad=True)


@pytest.mark.parametrize("function", [*LOSSES, kdops.pairwise_cosine, kdops.pairwise_distance])
def test_reference_under_autocast(function):
    """It computes in float32, not in the type of autocast."""
    x, y = torch.randn(20, 30), torch.randn(20, 30)
    with kdops.backend("reference"):
        expected = function(x, y)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(function(x, y), expected)


@native
def test_gradient_ops_refuse_other_shapes():
    """Called directly they would read beyond their inputs."""
    ops, one = torch.ops.kdops, torch.ones
    for grad in (one(1, 3, 9), one(1, 2, 2), one(2, 3, 2), one(3, 2), one(1, 3, 2).double()):
        with pytest.raises(RuntimeError, match=r"pairwise_distance_backward: .*grad"):
            ops.pairwise_distance_backward(grad, one(1, 3, 4), one(1, 2, 4), False, one(1, 3, 2))
        with pytest.raises(RuntimeError, match=r"pairwise_cosine_backward: .*grad"):
            ops.pairwise_cosine_backward(grad, one(1, 3, 4), one(1, 2, 4))
    with pytest.raises(RuntimeError, match=r"pairwise_distance_backward: .*out"):
        ops.pairwise_distance_backward(one(1, 3, 3), one(1, 3, 4), None, False, one(1, 3, 2))
    for grad in (one(3, 3, 2), one(9, 3), one(4, 4, 4)):
        with pytest.raises(RuntimeError, match=r"pairwise_angle_backward: .*grad"):
            ops.pairwise_angle_backward(grad, one(3, 2))


@pytest.mark.slow
@native
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(isa):
    """The same answers from every copy of the kernels (a process each: chosen once)."""
    program = """
        import torch, kdops
        torch.manual_seed(0)
        for dtype, limit in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
            student, teacher = torch.randn(41, 300).to(dtype), torch.randn(41, 7).to(dtype)
            student[3] = student[5]
            for function in (kdops.rkd_distance_loss, kdops.rkd_angle_loss, kdops.similarity_loss):
                results = []
                for name, cast in (("native", dtype), ("reference", torch.float64)):
                    x = student.to(cast).requires_grad_()
                    with kdops.backend(name):
                        loss = function(x, teacher.to(cast))
                    results.append((loss, torch.autograd.grad(loss, x)[0]))
                for a, e in zip(*results):
                    assert (a - e).abs().max() <= limit * e.abs().max(), (function, dtype)
        print(kdops.build_info()["active_instruction_set"])
    """
    run_python(program, KDOPS_ISA=isa)
