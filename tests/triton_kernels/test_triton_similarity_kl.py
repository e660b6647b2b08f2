"""The Triton kernels of similarity_kl_loss: interpreted against the references, and compiled ahead
of time."""

import pytest
from support.kernel_runs import interpret

pytest.importorskip("triton")

INTERPRETED = """
import torch
from kdops import _triton
from kdops.ops.similarity_kl import gradient, reference, triton as T
from kdops.testing import assert_close, poisoned_empty, relative_error

torch.manual_seed(0)
DTYPE = torch.{dtype}
NAN = float("nan")
randn = torch.randn

def run(rows, keys, mask, options, gradients=True, of_keys=None):
    sides = rows[0], keys[0], rows[1], keys[1]
    sides = [x if x is None else x.to(DTYPE) for x in sides]
    of_keys = keys[0] is not None if of_keys is None else of_keys
    with poisoned_empty():
        return T.similarity_kl(*sides, mask, *options, gradients, of_keys)

def expected_of(rows, keys, mask, options):
    sides = rows[0], keys[0], rows[1], keys[1]
    sides = [x if x is None else x.to(DTYPE).double() for x in sides]
    options = reference.Options(*options)
    loss = reference.similarity_kl_loss(*sides, mask, options)
    return loss, *gradient.similarity_kl_gradient(*sides, mask, options)

def check(*rows, keys=(None, None), mask=None, scales=(1.0, 1.0), cosine=True, self_pairs=True):
    options = (*scales, cosine, self_pairs)
    found = run(rows, keys, mask, options)
    assert all(x.dtype == DTYPE for x in found)
    loss, *gradients = expected_of(rows, keys, mask, options)
    assert_close(found[0], loss, DTYPE)
    for grad, expected in zip(found[1:], gradients):  # each batch entry by its own size
        assert_close(list(grad), list(expected), DTYPE, factor=4)
    return found

# several tiles, chunks and parts, in one part; a loss does not depend on what else is wanted
for self_pairs in (True, False):
    check(randn(1, 34, 140), randn(1, 34, 5), scales=(9.0, 5.0), self_pairs=self_pairs)
rows, keys = (randn(2, 3, 5), randn(2, 3, 4)), (randn(2, 34, 5), randn(2, 34, 4))
loss, g_student, g_keys = check(*rows, keys=keys, scales=(2.0, 3.0))
for wanted in ((False, False), (True, False), (False, True)):
    found = run(rows, keys, None, (2.0, 3.0, True, True), *wanted)
    assert torch.equal(found[0], loss)
    for grad, whole, yes in zip(found[1:], (g_student, g_keys), wanted):
        assert torch.equal(grad, whole if yes else whole.new_empty(0))
programs, _triton.PROGRAMS = _triton.PROGRAMS, 1
check(*rows, keys=keys, scales=(0.7, -0.8), cosine=False)
_triton.PROGRAMS = programs

# padding, whatever it holds; a sample of padding alone; read where they lie
rows = [randn(3, width, 33).mT for width in (6, 5)]
mask = torch.rand(3, 33) < 0.6
mask[2] = False
padded = [x.masked_fill(~mask.unsqueeze(-1), NAN) for x in rows]
for self_pairs in (True, False):
    options = (8.0, 4.0, True, self_pairs)
    found, plain = (run(r, (None, None), mask, options) for r in (padded, rows))
    assert all(map(torch.equal, found, plain)) and not found[1][~mask].any()
    loss, expected, _ = expected_of(rows, (None, None), mask, options)
    assert_close(found[:2], (loss, expected), DTYPE, factor=4)

# without itself a row may meet nobody
mask = torch.tensor([[1, 0, 0], [1, 1, 0]]) > 0
check(randn(2, 3, 4), randn(2, 3, 2), mask=mask, self_pairs=False)
loss, grad, _ = check(randn(3, 1, 4), randn(3, 1, 4), self_pairs=False)
assert loss == 0 and not grad.any()

# identical networks: zero to the last bit; near ones, of which a difference of shares keeps little
s = randn(2, 20, 7)
loss, grad, _ = run((s, s), (None, None), None, (10.0, 10.0, True, True))
assert loss == 0 and not grad.any()
s, t = randn(1, 20, 16), randn(1, 20, 16)
for near in (1e-1, 1e-2):
    options = (10.0, 10.0, True, True)
    found = run((s, s + near * t), (None, None), None, options)
    expected = expected_of((s, s + near * t), (None, None), None, options)
    limit = max(10 * torch.finfo(DTYPE).eps / near, 1e-11)  # the reference is double, too
    for value, exact in zip(found[:2], expected):
        assert relative_error(value, exact) < limit

# nearly equal rows are centred, one batch entry is, or keys are; clusters, a far row, denormal
s, t = 1 + 0.01 * randn(2, 20, 24), 1 + 0.01 * randn(2, 20, 24)
s[1] = randn(20, 24)
limit = 1e-3 if DTYPE == torch.float32 else 1e-11
for cosine, factor in ((True, 20.0), (False, 0.6)):
    for rows, keys in (((s, t), (None, None)), ((s[:, :5], t[:, :5]), (s, t))):
        options = (factor, factor, cosine, True)
        found, expected = run(rows, keys, None, options), expected_of(rows, keys, None, options)
        for b in (0, 1):
            assert relative_error(found[1][b], expected[1][b]) < limit
        assert relative_error(found[0], expected[0]) < limit / 100
for width, apart, far in ((1e-2, 100, 1), (1, 0, 1e5), (1, 0, 1e20), (4e-38, 0, 1)):
    x = width * randn(1, 12, 6, dtype=torch.double)
    x[0, :6] += apart
    x[0, 3] *= far
    check(x, randn(1, 12, 4))

# large logits, of one batch entry or of all, of one network or of both, are computed in double
sizes = torch.tensor([1.0, 1e3, 1e18]).view(3, 1, 1)
s, t = sizes * randn(3, 12, 6), randn(3, 12, 5)
for rows in ((s, t), (t, s), (s, sizes * t)):
    loss = run(rows, (None, None), None, (0.4, 0.4, False, True))[:2]
    expected = expected_of(rows, (None, None), None, (0.4, 0.4, False, True))[:2]
    assert_close(loss[0], expected[0], DTYPE)
    assert_close(list(loss[1]), list(expected[1]), DTYPE, factor=4)
check(randn(2, 12, 6), randn(2, 12, 5), scales=(1000.0, 2.0), self_pairs=False)

# a zero row meets all alike and has no gradient; of a NaN other batch entries see nothing
s, t = randn(3, 10, 4), randn(3, 10, 4)
s[0, 3], t[0, 7] = 0, 0
_, clean, _ = check(s, t, scales=(5.0, 5.0))
assert not clean[0, 3].any() and clean[0, 7].any()
for lost in (s, t):
    before = lost[1, 2, 1].clone()
    lost[1, 2, 1] = NAN
    loss, grad, _ = run((s, t), (None, None), None, (5.0, 5.0, True, True))
    assert loss.isnan() and grad[1].isnan().all() and torch.equal(grad[[0, 2]], clean[[0, 2]])
    lost[1, 2, 1] = before

for batch, n, m, width in ((0, 3, 2, 2), (2, 0, 3, 2), (2, 3, 0, 2), (2, 3, 4, 0)):
    rows, keys = (randn(batch, n, width),) * 2, (randn(batch, m, width),) * 2
    for given in (keys, (None, None)):
        loss, g_student, g_keys = run(rows, given, None, (1.0, 1.0, True, True))
        assert loss == 0 and g_student.shape == rows[0].shape and not g_student.any()
        assert g_keys.shape == ((0,) if given[0] is None else keys[0].shape) and not g_keys.any()
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_interpreter_against_the_references(dtype):
    interpret(INTERPRETED.format(dtype=dtype))
