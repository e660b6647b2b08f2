"""align_singular_vectors: kernels and reference against the rule written out, and the gradient."""

import pytest
import torch

import kdops
from kdops import align_singular_vectors

# (B, D, K', k): fewer and more candidates than are taken at once, lengths off the registers
SIZES = [(5, 9, 5, 2), (3, 6, 1, 3), (2, 1, 3, 2), (4, 70, 6, 3), (1, 33, 17, 16), (300, 64, 4, 1)]


def pair(sizes, dtype=torch.float64):
    batch, length, candidates, count = sizes
    student = torch.randn(batch, length, candidates, dtype=dtype)
    return student, torch.randn(batch, length, count, dtype=dtype)


def sliced(x):
    wide = torch.full((*x.shape[:2], 2 * x.shape[2] + 1), float("nan"), dtype=x.dtype)
    wide[..., 1::2] = x
    return wide[..., 1::2]


LAYOUTS = {"rows": lambda x: x, "columns": lambda x: x.mT.contiguous().mT, "sliced": sliced}


def written_out(student, teacher):
    """Sample by sample, vector by vector: the result and the places of the chosen vectors."""
    aligned, places = torch.empty_like(teacher), []
    for b, (s, t) in enumerate(zip(student, teacher, strict=True)):
        for j in range(t.shape[1]):
            cosines = [float(s[:, i].double() @ t[:, j].double()) for i in range(s.shape[1])]
            best = max(range(len(cosines)), key=lambda i: abs(cosines[i]))
            aligned[b, :, j] = -s[:, best] if cosines[best] < 0 else s[:, best]
            places.append((b, best, j, -1 if cosines[best] < 0 else 1))
    return aligned, places


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_value_and_gradient(backend, sizes, dtype, layout):
    student, teacher = map(LAYOUTS[layout], pair(sizes, dtype))
    student.requires_grad_(), teacher.requires_grad_()
    aligned = align_singular_vectors(student, teacher)
    expected, places = written_out(student.detach(), teacher.detach())
    assert torch.equal(aligned, expected)
    cotangent = LAYOUTS[layout](torch.randn(aligned.shape, dtype=dtype))
    grads = torch.autograd.grad(aligned, (student, teacher), cotangent, allow_unused=True)
    expected_grad = torch.zeros_like(student)
    for b, i, j, sign in places:
        expected_grad[b, :, i] += sign * cotangent[b, :, j]
    torch.testing.assert_close(grads[0], expected_grad)
    assert grads[1] is None


def test_example(backend):
    student = torch.tensor([[[1.0, 0.6, 0.0], [0.0, -0.8, 1.0]]], requires_grad=True)
    teacher = torch.tensor([[[0.0, -1.0, 0.5], [1.0, 0.0, 0.5]]])
    aligned = align_singular_vectors(student, teacher)
    # the third: |cosine| of students 0 and 2 are equal, the first of them serves
    expected = torch.tensor([[[0.0, -1.0, 1.0], [1.0, 0.0, 0.0]]])
    assert torch.equal(aligned, expected)
    assert ((aligned * teacher).sum(1) >= 0).all()
    (grad,) = torch.autograd.grad(aligned.sum(), student)  # a cotangent of stride zero
    assert torch.equal(grad, torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_first_of_equals(layout):
    """Copies of one vector, turned round or not, among the same four and among others."""
    student, teacher = pair((2, 21, 9, 2))
    teacher[..., 1] = -teacher[..., 0]
    student[..., 2] = 3 * teacher[..., 0]
    student[..., [3, 7, 8]] = student[..., 2:3] * torch.tensor([-1.0, 1.0, -1.0])
    choice = torch.ops.kdops.align_vectors(LAYOUTS[layout](student), teacher)[1]
    assert choice.tolist() == [[3, -3]] * 2


def test_orthogonal_vectors_give_the_first(backend):
    student = torch.eye(6).expand(2, 6, 6)[..., :5]
    assert torch.equal(
        align_singular_vectors(student, student.new_zeros(2, 6, 1)), student[..., :1]
    )


@pytest.mark.parametrize("bad", [[3], [6, 2], [0, 7]], ids=str)
def test_nan_counts_as_the_closest_and_stays_alone(backend, bad):
    student, teacher = pair((3, 10, 9, 2))
    clean = align_singular_vectors(student, teacher)
    student[1, 4, bad] = float("nan")
    student.requires_grad_()
    aligned = align_singular_vectors(student, teacher)
    chosen = student[1, :, min(bad), None].expand(-1, 2)
    torch.testing.assert_close(aligned[1], chosen, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(aligned[[0, 2]], clean[[0, 2]])
    (grad,) = torch.autograd.grad(aligned[1].sum(), student)
    assert torch.equal(grad[1].any(0).nonzero().flatten(), torch.tensor([min(bad)]))
    assert grad[1, 0, min(bad)] == 2  # not turned round


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_choose_in_float32(backend, dtype):
    student, teacher = pair((200, 64, 16, 2), dtype)
    aligned = align_singular_vectors(student, teacher)
    assert torch.equal(aligned, written_out(student, teacher)[0])
    with torch.autocast("cpu", torch.bfloat16):  # chooses in float32 too, and answers in it
        aligned = align_singular_vectors(student, teacher)
    assert torch.equal(aligned, written_out(student, teacher)[0].float())


@pytest.mark.parametrize("sizes", [(0, 5, 4, 2), (2, 0, 3, 2), (2, 5, 3, 0)], ids=str)
def test_empty(backend, sizes):
    student, teacher = pair(sizes)
    student.requires_grad_()
    aligned = align_singular_vectors(student, teacher)
    assert aligned.shape == teacher.shape
    (grad,) = torch.autograd.grad(aligned.sum(), student)
    assert torch.equal(grad, torch.zeros_like(student))
    mapped = torch.func.vmap(align_singular_vectors)(
        *(x.expand(3, *x.shape) for x in (student, teacher))
    )
    assert mapped.shape == (3, *teacher.shape)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradcheck_to_second_order(backend, layout):
    student, teacher = map(LAYOUTS[layout], pair((2, 4, 3, 5)))
    student.requires_grad_()

    def squared(student):  # so that there is a second derivative
        return align_singular_vectors(student, teacher) ** 2

    assert torch.autograd.gradcheck(squared, (student,))
    assert torch.autograd.gradgradcheck(squared, (student,))


def test_gradient_lies_like_right_singular_vectors():
    """The vectors are the rows of Vh: its gradient comes in one piece, without a copy."""
    Vh, teacher = torch.randn(2, 4, 9, requires_grad=True), torch.randn(2, 9, 2)
    aligned = align_singular_vectors(Vh.mT, teacher)
    (grad,) = torch.autograd.grad(aligned, Vh, torch.ones_like(aligned))
    assert grad.is_contiguous()


def test_a_teacher_alone_has_no_history(backend):
    student, teacher = pair((2, 4, 3, 1))
    assert not align_singular_vectors(student, teacher.requires_grad_()).requires_grad


def test_explain(capsys):
    kdops.explain(align_singular_vectors, *pair((2, 4, 3, 1), torch.float32))
    printed = capsys.readouterr().out
    assert "align_singular_vectors on cpu, float32, sizes (4, 3, 1):" in printed
    assert "native    serves" in printed


@pytest.mark.parametrize(
    ("op", "build"),
    [
        ("align_vectors", lambda s, t, c: (s, t[:, :3])),
        ("align_vectors", lambda s, t, c: (s[..., :0], t)),
        ("align_vectors", lambda s, t, c: (s, t.float())),
        ("align_vectors_backward", lambda s, t, c: (t, c[:, :1], 3)),
        ("align_vectors_backward", lambda s, t, c: (t, c.int(), 3)),
    ],
)
def test_direct_calls_are_checked(op, build):
    student, teacher = pair((2, 4, 3, 2))
    choice = torch.ones(2, 2, dtype=torch.int64)
    with pytest.raises(RuntimeError, match=op):
        getattr(torch.ops.kdops, op)(*build(student, teacher, choice))
