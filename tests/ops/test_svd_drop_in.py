"""Code written for torch.linalg: its options, its counts, its tensors, TorchScript and tracing."""

import numpy as np
import pytest
import torch

import kdops
from kdops import (
    align_singular_vectors,
    batched_eigh,
    batched_nuclear_norm,
    batched_polar,
    batched_svd,
    batched_svdvals,
)

DECOMPOSITIONS = [batched_svd, batched_svdvals, batched_eigh, batched_polar, batched_nuclear_norm]


def name(function):
    return function.__name__


def same(actual, expected):
    pairs = zip(kdops.testing.tensors_in(actual), kdops.testing.tensors_in(expected), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def A():
    A = torch.randn(2, 4, 4, dtype=torch.float64)
    return A + A.mT


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (batched_svd, {"full_matrices": False, "driver": None, "out": None}),
        (batched_svdvals, {"driver": None, "out": None}),
        (batched_eigh, {"UPLO": "L", "out": None}),
        (batched_polar, {"side": "right", "out": None}),
        (batched_nuclear_norm, {"out": None}),
    ],
)
def test_options_that_we_have(A, function, options):
    assert same(function(A, **options), function(A))


@pytest.mark.parametrize(
    ("function", "option", "value", "found", "advice"),
    [
        (batched_svd, "full_matrices", True, "True", "torch.linalg.svd"),
        (batched_svd, "driver", "gesvd", "'gesvd'", "kdops.explain"),
        (batched_svdvals, "driver", "gesvdj", "'gesvdj'", "kdops.explain"),
        (batched_eigh, "UPLO", "U", "'U'", r"pass A\.mT"),
        (batched_polar, "side", "left", "'left'", r"K is its H"),
        *((f, "out", torch.empty(3), r"\[3\] \(1-D\)", "copy_") for f in DECOMPOSITIONS),
        (batched_svd, "out", (), "tuple", "copy_"),
    ],
)
def test_options_that_we_lack_get_a_sentence(A, function, option, value, found, advice):
    message = rf"^{name(function)}: expected {option}=.*, got {found}: .*{advice}"
    with pytest.raises(ValueError, match=message):
        function(A, **{option: value})


def test_the_advice_is_right(A):
    """What the sentences say instead: UPLO and side."""
    upper, both = A.triu(), batched_eigh(A)
    assert same(batched_eigh(upper.mT), both)
    B = torch.randn(2, 5, 3, dtype=torch.float64)
    U, K = batched_polar(B.mT)
    torch.testing.assert_close(K @ U.mT, B)
    assert (torch.linalg.eigvalsh(K) > -1e-12).all()


@pytest.mark.parametrize("k", [np.int64(2), np.uint8(2), torch.tensor(2), torch.tensor(2).int()])
def test_k_is_whatever_indexes(k):
    A = torch.randn(3, 9, 7)
    assert same(batched_svd(A, k), batched_svd(A, 2))
    assert same(batched_svdvals(A, k), batched_svdvals(A, 2))


@pytest.mark.parametrize(
    ("k", "found"),
    [
        (True, "bool; full_matrices goes by its name"),
        (2.0, "float"),
        ("2", "str"),
        (np.float32(2), "float32"),
        (np.bool_(True), "bool"),
        (np.array([2]), "ndarray"),
        (torch.tensor(2.0), r"a tensor of shape \[\] and torch.float32"),
        (torch.tensor([2]), r"a tensor of shape \[1\]"),
        (torch.tensor(True), r"a tensor of shape \[\] and torch.bool"),
    ],
)
@pytest.mark.parametrize("function", [batched_svd, batched_svdvals])
def test_k_is_no_truth_and_no_fraction(function, k, found):
    with pytest.raises(TypeError, match=f"^{name(function)}: expected k to be an int, got {found}"):
        function(torch.randn(2, 5, 4), k)


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("function", [*DECOMPOSITIONS, align_singular_vectors, kdops.gram])
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_tensors_get_a_sentence(function, layout):
    A = torch.eye(4).to_sparse(layout=layout)
    message = rf"^{name(function)}: expected (\w+) to be dense, got layout {layout}".replace(
        "torch.", ""
    )
    with pytest.raises(TypeError, match=message + r": call \1\.to_dense\(\)"):
        function(*[A] * (2 if function is align_singular_vectors else 1))


@pytest.mark.parametrize("function", DECOMPOSITIONS, ids=name)
def test_complex_matrices_get_a_sentence(A, function):
    message = f"^{name(function)}: expected A of dtype .*, got complex128: torch.linalg"
    with pytest.raises(TypeError, match=message):
        function(A.to(torch.cdouble))


# ---- TorchScript ---------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [*DECOMPOSITIONS, align_singular_vectors, kdops.gram])
def test_script_says_what_to_do_instead(function):
    def caller(A):
        return function(A)

    for scripted in (function, caller):
        with pytest.raises(TypeError, match=f"{name(function)}: torch.jit.script cannot .*trace"):
            torch.jit.script(scripted)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("function", [*DECOMPOSITIONS, lambda A: batched_svd(A, 1)])
def test_trace_holds_the_op_and_its_gradient(A, function):
    """Traced with and without a gradient; called with new values and another batch."""

    def tensors(A):
        return tuple(kdops.testing.tensors_in(function(A)))

    other = torch.cat([A + 1, 2 * A])
    for watched in (False, True):
        traced = torch.jit.trace(tensors, (A.clone().requires_grad_(watched),))
        assert "^" not in str(traced.graph)  # an op, not a call of Python
        leaves = [other.clone().requires_grad_() for _ in range(2)]
        results = [f(x) for f, x in zip((tensors, traced), leaves, strict=True)]
        assert same(*results)
        grads = [
            torch.autograd.grad(sum(t.sum() for t in result), x)
            for result, x in zip(results, leaves, strict=True)
        ]
        assert same(*grads)
