"""The alignment of singular vectors on a GPU. To try the tests themselves where there is none, take
the mark off and set DEVICE to "cpu"."""

import pytest
import torch
from support.cuda_graphs import captured, on_cpu

from kdops import align_singular_vectors

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("native_on_a_gpu")]

DTYPES = [torch.float32, torch.float64]


def aligned_with_gradient(student, teacher):
    student = student.detach().requires_grad_()
    aligned = align_singular_vectors(student, teacher)
    return [aligned.detach(), *torch.autograd.grad(aligned.square().sum(), student)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", [(128, 64, 4, 1), (3, 200, 13, 5), (2, 1, 1, 3)], ids=str)
def test_alignment_is_that_of_the_cpu(sizes, dtype):
    student, teacher = (torch.randn(*sizes[:2], k, dtype=dtype) for k in sizes[2:])
    student[1, -1, 0] = float("nan")
    expected = aligned_with_gradient(student, teacher)
    for lay in (lambda x: x, lambda x: x.mT.contiguous().mT):  # rows, columns
        found = on_cpu(aligned_with_gradient(lay(student).to(DEVICE), lay(teacher).to(DEVICE)))
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.skipif(DEVICE != "cuda", reason="there are no graphs on the CPU")
def test_alignment_in_a_cuda_graph():
    pair = [torch.randn(5, 64, k, device=DEVICE) for k in (4, 2)]
    graph, results = captured(lambda: aligned_with_gradient(*pair))
    pair[0].copy_(torch.randn(5, 64, 4))
    graph.replay()
    torch.testing.assert_close(on_cpu(results), on_cpu(aligned_with_gradient(*pair)))
