"""The losses of maps and of singular vectors where no numbers are: traced graphs, meta tensors,
autocast on the reference; and their ops called directly with wrong shapes."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import kdops

LOSSES = {
    "attention_loss": lambda x: kdops.attention_loss(x, x * 2 + 1),
    "attention_loss, paper": lambda x: kdops.attention_loss(x, x * 2 + 1, p=3, variant="paper"),
    "fsp_loss": lambda x: kdops.fsp_loss((x, x * x), (x * 2, x)),
    "fsp_loss, mse": lambda x: kdops.fsp_loss((x, x * x), (x * 2, x), variant="mse"),
    "nst_loss": lambda x: kdops.nst_loss(x, x * x),
    "nst_loss, gaussian": lambda x: kdops.nst_loss(x, x * x, kernel="gaussian"),
    "svd_rbf_loss": lambda x: kdops.svd_rbf_loss(*(f(x).flatten(2) for f in FOUR)),
}
FOUR = (lambda x: x, lambda x: x * x, lambda x: x + 1, lambda x: 2 * x)

losses = pytest.mark.parametrize("name", LOSSES)


def maps(batch, **options):
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 4, 3, 2, generator=generator).to(**options)


@losses
@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_one_graph_serves_every_batch_size(name, backend):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    function = torch.compile(LOSSES[name], backend=counter, dynamic=True, fullgraph=True)
    graphs = []
    for batch in range(5, 17):  # no size of the maps: equal sizes are one symbol
        x = maps(batch).requires_grad_()
        loss = function(x)
        (pull,) = torch.autograd.grad(loss, x)
        expected = LOSSES[name](x)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(pull, torch.autograd.grad(expected, x)[0])
        graphs.append(counter.frame_count)
    assert graphs == graphs[:1] * 12  # a restart of the analysis counts too, within the first call


@losses
def test_export_with_a_dynamic_batch(name):
    class Module(torch.nn.Module):
        def forward(self, x):
            return LOSSES[name](x)

    batch = {"x": {0: torch.export.Dim("batch", min=2, max=64)}}
    program = torch.export.export(Module(), (maps(4),), dynamic_shapes=batch).module()
    for size in (2, 7):
        torch.testing.assert_close(program(maps(size)), LOSSES[name](maps(size)))


@losses
def test_meta_tensors(name):
    x = maps(3, device="meta").requires_grad_()
    loss = LOSSES[name](x)
    assert loss.is_meta
    assert loss.shape == ()
    (pull,) = torch.autograd.grad(loss, x)
    assert pull.shape == x.shape


@pytest.mark.parametrize("function", [kdops.gram, kdops.fsp_matrix, kdops.attention_map])
def test_meta_tensors_of_maps(function):
    x = maps(3, device="meta").requires_grad_()
    out = function(x, x) if function is kdops.fsp_matrix else function(x)
    assert torch.autograd.grad(out.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [*LOSSES, "gram", "attention_map", "nst_loss, linear"])
def test_the_reference_computes_in_float32_under_autocast(name, dtype):
    others = {
        "gram": kdops.gram,
        "attention_map": kdops.attention_map,
        "nst_loss, linear": lambda x: kdops.nst_loss(x, x * x, kernel="linear"),
    }
    function = LOSSES.get(name) or others[name]
    x = maps(3).requires_grad_()
    with kdops.backend("reference"):
        expected = function(x)
        (slope,) = torch.autograd.grad(expected.sum(), x)
        with torch.autocast("cpu", dtype):
            result = function(x)
    (pull,) = torch.autograd.grad(result.sum(), x)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)
    assert torch.equal(pull, slope)


def ones(*shape):
    return torch.ones(shape)


WRONG = {
    "attention_map": [(ones(2, 3), 2.0, False)],
    "attention_map_backward": [
        (ones(2, 4), ones(2, 3), 2.0, False),
        (ones(2, 5), ones(2, 3, 4), 2.0, False),
        (ones(1, 4), ones(2, 3, 4), 2.0, False),
        (ones(2, 4).double(), ones(2, 3, 4), 2.0, False),
    ],
    "attention_loss": [
        (ones(2, 3, 4), ones(2, 3, 5), 2.0, False, False),
        (ones(2, 3, 4), ones(1, 3, 4), 2.0, False, False),
        (ones(2, 3, 4), ones(2, 3, 4).double(), 2.0, False, False),
        (ones(2, 3), ones(2, 3), 2.0, False, False),
    ],
    "attention_loss_backward": [
        (ones(2, 4), ones(1), ones(2, 3, 4), 2.0, False),
        (ones(2, 4), ones(2, 1), ones(2, 3, 4), 2.0, False),
        (ones(2, 4), ones(2).double(), ones(2, 3, 4), 2.0, False),
        (ones(2, 3), ones(2), ones(2, 3, 4), 2.0, False),
        (ones(2, 4), ones(2), ones(2, 3), 2.0, False),
    ],
    "gram": [(ones(2, 3), None), (ones(2, 3, 4), ones(2, 3, 5)), (ones(2, 3, 4), ones(1, 3, 4))],
    "gram_backward": [
        (ones(2, 3, 4), ones(2, 3, 5), None),
        (ones(2, 3), ones(2, 3, 5), None),
        (ones(1, 3, 3), ones(2, 3, 5), None),
        (ones(2, 3, 3), ones(2, 3, 5), ones(2, 4, 5)),
        (ones(2, 3, 3).double(), ones(2, 3, 5), None),
    ],
    "gram_loss": [
        (ones(2, 3, 4), ones(2, 3, 4), ones(2, 3, 4), None, 0, False, True),
        (ones(2, 3, 4), ones(2, 3, 5), ones(2, 3, 4), ones(2, 3, 4), 0, False, True),
        (ones(2, 3, 4), ones(2, 3, 4), ones(2, 2, 4), ones(2, 3, 4), 0, False, True),
        (ones(2, 3, 4), ones(2, 3, 4), ones(2, 3, 4), ones(2, 2, 4), 0, False, True),
        (ones(2, 3, 4), ones(2, 3, 4), ones(2, 3, 4), ones(2, 3, 5), 0, False, True),
        (ones(2, 3, 4), ones(2, 3, 4), ones(1, 3, 4), ones(2, 3, 4), 0, False, True),
        (ones(2, 3, 4), None, ones(2, 3, 5), None, 0, True, True),
        (ones(2, 3, 4), None, ones(2, 3, 4), None, 2, True, True),
        (ones(2, 3, 4), None, ones(2, 3, 4), None, 3, False, True),
        (ones(2, 3, 4), None, ones(2, 3, 4), None, -1, False, True),
    ],
    "nst_loss": [
        (ones(2, 3, 4), ones(2, 3, 5), False, True),
        (ones(2, 3, 4), ones(1, 3, 4), False, True),
        (ones(2, 3, 4), ones(2, 5, 4), True, True),
        (ones(2, 3), ones(2, 3), False, True),
        (ones(2, 3, 4), ones(2, 3, 4).double(), False, True),
    ],
    "svd_rbf_loss": [
        (ones(2, 3), ones(2, 3), ones(2, 3), ones(2, 3), 8.0, 0, True),
        (ones(2, 3, 1), ones(1, 4, 1), ones(2, 3, 1), ones(2, 4, 1), 8.0, 0, True),
        (ones(2, 3, 1), ones(2, 4, 2), ones(2, 3, 1), ones(2, 4, 1), 8.0, 0, True),
        (ones(2, 3, 1), ones(2, 4, 1), ones(2, 4, 1), ones(2, 4, 1), 8.0, 0, True),
        (ones(2, 3, 1), ones(2, 4, 1), ones(2, 3, 1), ones(2, 3, 1), 8.0, 0, True),
        (ones(2, 3, 1), ones(2, 4, 1), ones(2, 3, 1), ones(2, 4, 1), 8.0, 3, True),
    ],
}


@pytest.mark.parametrize("op", WRONG)
def test_a_direct_call_with_wrong_shapes_names_the_op(op):
    for arguments in WRONG[op]:
        with pytest.raises(RuntimeError, match=f"{op}: "):
            getattr(torch.ops.kdops, op).default(*arguments)
