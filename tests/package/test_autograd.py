"""What kdops._autograd promises beyond the contract, on a fused loss."""

import pytest
import torch
from torch.autograd import forward_ad

import kdops


@pytest.fixture
def rows(device):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 4, generator=generator).to(device) for _ in range(2))
    return student.requires_grad_(), teacher


def test_a_kept_graph_gives_the_same_gradient_again(rows):
    student, teacher = rows
    loss = 3 * kdops.rkd_distance_loss(student, teacher)
    first = torch.autograd.grad(loss, student, retain_graph=True)[0].clone()
    second = torch.autograd.grad(loss, student, retain_graph=True)[0].clone()
    third = torch.autograd.grad(loss, student)[0]
    assert torch.equal(first, second)
    assert torch.equal(first, third)


def test_the_last_backward_needs_no_second_buffer(rows):
    """It scales the saved gradient where it lies; a kept graph must not see that."""
    student, teacher = rows
    places = []

    def unpack(tensor):
        places.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        loss = 3 * kdops.rkd_distance_loss(student, teacher)
    kept = torch.autograd.grad(loss, student, retain_graph=True)[0]
    assert kept.data_ptr() not in places
    last = torch.autograd.grad(loss, student)[0]
    assert last.data_ptr() in places
    assert torch.equal(kept, last)


def test_a_second_backward_of_a_freed_graph_is_refused(rows):
    student, teacher = rows
    loss = kdops.rkd_distance_loss(student, teacher)
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_gradients_accumulate(rows):
    student, teacher = rows
    expected = torch.autograd.grad(kdops.rkd_distance_loss(student, teacher), student)[0]
    for _ in range(2):
        kdops.rkd_distance_loss(student, teacher).backward()
    torch.testing.assert_close(student.grad, 2 * expected)


def test_batched_cotangents(rows):
    student, teacher = rows
    loss = kdops.rkd_distance_loss(student, teacher)
    weights = torch.tensor([1.0, -2.0], device=student.device)
    grads = torch.autograd.grad(loss, student, weights, is_grads_batched=True)[0]
    torch.testing.assert_close(grads[1], -2 * grads[0])
    assert grads[0].any()


def test_a_compiled_function_refuses_dual_tensors(rows):
    """torch.compile would drop the tangent without a word."""
    student, teacher = (t.detach() for t in rows)
    torch._dynamo.reset()
    compiled = torch.compile(kdops.similarity_loss, backend="eager", fullgraph=True)
    compiled(student, teacher)
    with forward_ad.dual_level(), pytest.raises(Exception, match=r"use torch\.func\.jvp"):
        compiled(forward_ad.make_dual(student, teacher), teacher)
