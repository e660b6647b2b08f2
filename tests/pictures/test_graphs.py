"""Graph pictures: arrows and titles against attention and messages computed here."""

import numpy as np
import pytest
import torch

from kdops.distillers import IEP, MHGD
from kdops.distillers._embedding import plane_map
from kdops.pictures import iep_graphs, mhgd_graphs

pytest.importorskip("matplotlib")
B = 8
LABELS = torch.arange(B) % 2


@pytest.fixture
def networks():
    make = lambda c: [torch.randn(B, c, 6, 6), torch.randn(B, 2 * c, 6, 6)]  # noqa: E731
    return {"teacher": make(8), "student": make(4)}


def prepared(make, networks):
    method = make([4, 8], [8, 16])
    method.prepare([networks["teacher"]], epochs=2, progress=False)
    return method


def first_right(x):
    """Of every map, with canonical sign."""
    v = torch.linalg.svd(x.flatten(2).mT)[2][:, 0]
    return v * torch.sign(v.amax(1) + v.amin(1))[:, None]


def arrows(ax):
    """Pairs (from, to) of places, sorted."""
    found = []
    for quiver in [c for c in ax.collections if hasattr(c, "U")]:
        start = np.stack([quiver.X, quiver.Y], 1)
        end = start + np.stack([quiver.U, quiver.V], 1)
        found += [tuple(np.round([*a, *b], 3).tolist()) for a, b in zip(start, end, strict=True)]
    return sorted(found)


def expected_arrows(graph, places, edges):
    graph = graph.clone()
    graph.fill_diagonal_(-np.inf)
    best = graph.argsort(1, descending=True)[:, :edges]
    pairs = [(i, int(j)) for i in range(B) for j in best[i]]
    ends = [np.round([*places[i].tolist(), *places[j].tolist()], 3) for i, j in pairs]
    return sorted(tuple(x.tolist()) for x in ends), pairs


def places_of(embedding):
    x = embedding - embedding.mean(0)
    vh = torch.linalg.svd(x, full_matrices=False)[2][:2]
    return x @ (vh * torch.sign(vh.amax(1) + vh.amin(1))[:, None]).T


def within(pairs):
    return 100 * sum(bool(LABELS[i] == LABELS[j]) for i, j in pairs) / len(pairs)


def check(ax, graph, places, edges=2):
    ends, pairs = expected_arrows(graph, places, edges)
    np.testing.assert_allclose(arrows(ax), ends, atol=2e-3)
    assert f"{within(pairs):.0f} % within a class" in ax.get_title()
    return pairs


def test_mhgd(networks):
    method = prepared(MHGD, networks)
    embedding = torch.randn(B, 5)
    figure = mhgd_graphs(method, networks, LABELS, embedding=embedding)
    assert len(figure.axes) == 2
    assert figure.axes[0].get_ylabel() == "attention\nlevels 1 and 2"
    front, back = (first_right(x) for x in networks["teacher"])
    with torch.no_grad():
        logits = method.heads[0].logits(front, back)
    teacher = check(figure.axes[0], logits.tanh().softmax(-1).mean(0), places_of(embedding))
    with torch.no_grad():
        pairs = method.vectors(networks["student"], networks["teacher"])
        logits = method.heads[0].logits(pairs[0][0], pairs[1][0])
    student = check(figure.axes[1], logits.tanh().softmax(-1).mean(0), places_of(embedding))
    share = 100 * len(set(teacher) & set(student)) / len(teacher)
    assert figure.axes[1].get_title().endswith(f"{share:.0f} % as the teacher")
    assert figure.axes[0].get_title().startswith("teacher\n")
    nodes = figure.axes[0].collections[-1]
    np.testing.assert_allclose(nodes.get_offsets(), places_of(embedding), atol=1e-4)
    assert nodes.get_array().tolist() == LABELS.tolist()


def test_iep(networks):
    method = prepared(IEP, networks)
    figure = iep_graphs(method, networks, LABELS, edges=1, pair=0)
    assert [ax.get_ylabel() for ax in figure.axes[::2]] == [
        "affinity\nlevels 1 and 2",
        "message\nlevels 1 and 2",
    ]
    codes = [
        (plane_map(first_right(x)) - pca.mean) @ pca.basis
        for pca, x in zip(method.codes, networks["teacher"], strict=True)
    ]
    with torch.no_grad():
        graph, messages = method.graphs[0](*codes)
    places = places_of(networks["teacher"][-1].mean((2, 3)))
    check(figure.axes[0], graph, places, 1)
    check(figure.axes[2], messages.abs().sum(2), places, 1)


def test_a_method_that_is_not_prepared(networks):
    with pytest.raises(RuntimeError, match="preparatory phase was not run"):
        mhgd_graphs(MHGD([4, 8], [8, 16]), networks, LABELS)
    with pytest.raises(RuntimeError, match="preparatory phase was not run"):
        iep_graphs(IEP([4, 8], [8, 16]), networks, LABELS)
