"""MHGD's and IEP's graphs: the samples of a batch are nodes, laid out by an embedding."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from kdops.distillers import IEP, MHGD
from kdops.distillers._graph import GraphAttention
from kdops.pictures._figure import CLASSES, Networks, bare, figure, networks, plane

Graphs = dict[str, list[Tensor]]  # by network: a matrix (B, B) per pair of levels


def mhgd_graphs(
    method: MHGD,
    features: Networks,
    labels: Tensor,
    *,
    embedding: Tensor | None = None,
    pair: int | None = None,
    edges: int = 2,
) -> Any:
    """MHGD's attention graphs G = softmax(tanh S), mean over the heads, on an embedding.

    A row per pair of levels (pair: one of them only), a column per network, the teacher's first.
    Every sample has an arrow to each of the edges samples it attends to most, itself aside; dark
    arrows stay within a class, light ones leave it; the title says how many stay, and how many the
    teacher has too. embedding (B, D): what its two principal components lay out, the same for all
    networks; None: the teacher's last level, averaged over positions. method: prepared.

    >>> maps = [torch.rand(6, 8, 4, 4), torch.rand(6, 8, 2, 2)]
    >>> method = MHGD([8, 8], [8, 8])
    >>> history = method.prepare([maps], epochs=1, progress=False)
    >>> figure = mhgd_graphs(method, {"teacher": maps, "student": maps}, torch.arange(6) % 2)
    """
    found = mhgd_attention(method, features)
    title = "MHGD: whom a sample attends to most between two levels (mean over heads)"
    return _drawn(
        "mhgd_graphs", features, [("attention", found)], labels, embedding, pair, edges, title
    )


def iep_graphs(
    method: IEP,
    features: Networks,
    labels: Tensor,
    *,
    embedding: Tensor | None = None,
    pair: int | None = None,
    edges: int = 2,
) -> Any:
    """IEP's graphs Ã and its messages Σ_d |m|, on an embedding.

    As mhgd_graphs, with two rows per pair of levels: each sample's strongest affinities in Ã, and
    its largest messages (of both iterations). method: prepared.

    >>> maps = [torch.rand(6, 8, 4, 4), torch.rand(6, 8, 2, 2)]
    >>> method = IEP([8, 8], [8, 8])
    >>> history = method.prepare([maps], epochs=1, progress=False)
    >>> figure = iep_graphs(method, {"teacher": maps, "student": maps}, torch.arange(6) % 2)
    >>> [ax.get_ylabel() for ax in figure.axes[::2]]
    ['affinity\\nlevels 1 and 2', 'message\\nlevels 1 and 2']
    """
    graphs, messages = iep_knowledge(method, features)
    title = "IEP: strongest affinities and largest messages between samples"
    kinds = [("affinity", graphs), ("message", messages)]
    return _drawn("iep_graphs", features, kinds, labels, embedding, pair, edges, title)


@torch.no_grad()
def mhgd_attention(method: MHGD, features: Networks) -> Graphs:
    """The mean over heads of softmax(S), or softmax(tanh S); rows are samples of the back level."""
    named = networks("mhgd_graphs", features, beside=method)
    found = {}
    for name, (side, student, teacher) in _sides(named).items():
        vectors = [pair[side] for pair in method.vectors(student, teacher)]
        graphs = []
        for head, (front, back) in zip(method.heads, pairwise(vectors), strict=True):
            logits = cast(GraphAttention, head).logits(front, back)
            logits = logits.tanh() if method.tanh else logits
            graphs.append(torch.softmax(logits, -1).mean(0).cpu())
        found[name] = graphs
    return found


@torch.no_grad()
def iep_knowledge(method: IEP, features: Networks) -> tuple[Graphs, Graphs]:
    """Ã, and the sizes Σ_d |m| of the messages."""
    named = networks("iep_graphs", features, beside=method)
    graphs: Graphs = {}
    messages: Graphs = {}
    for name, (side, student, teacher) in _sides(named).items():
        codes = [pair[side] for pair in method.codes_of(student, teacher)]
        both = [net(*pair) for net, pair in zip(method.graphs, pairwise(codes), strict=True)]
        graphs[name] = [graph.cpu() for graph, _ in both]
        messages[name] = [m.abs().sum(2).cpu() for _, m in both]
    return graphs, messages


def _sides(named: dict[str, list[Tensor]]) -> dict[str, tuple[int, list[Tensor], list[Tensor]]]:
    """By network: its place in a method's pairs (student's, teacher's), and what to pair. The
    teacher goes with the last network: a student of other channels has a connector of its own."""
    (first, teacher), *_ = named.items()
    *_, partner = named.values()
    students = {name: (0, x, teacher) for name, x in named.items() if name != first}
    return {first: (1, partner, teacher), **students}


def strongest(graph: Tensor, edges: int) -> Tensor:
    """(B, edges): of every row the columns of its largest entries beside the diagonal."""
    others = graph.clone().fill_diagonal_(-torch.inf)
    return others.topk(min(edges, len(graph) - 1), 1).indices


def agreement(targets: Tensor, others: Tensor) -> float:
    """How many of the edges (B, edges) another graph has too, in per cent."""
    return 100.0 * float((targets[:, :, None] == others[:, None, :]).any(2).float().mean())


def _drawn(
    where: str,
    features: Networks,
    kinds: list[tuple[str, Graphs]],
    labels: Tensor,
    embedding: Tensor | None,
    pair: int | None,
    edges: int,
    title: str,
) -> Any:
    """A row per pair of levels and kind, a column per network."""
    named = networks(where, features)
    if embedding is None:
        embedding = next(iter(named.values()))[-1].flatten(2).mean(2)
    places, labels = plane(embedding.detach().float().cpu()), labels.cpu()
    pairs = range(len(next(iter(kinds[0][1].values()))))
    chosen = pairs if pair is None else [pairs[pair]]
    rows = [(kind, i, graphs) for i in chosen for kind, graphs in kinds]
    made, axes = figure(len(rows), len(named), 3.5, 3.2, title)
    for row, (kind, i, graphs) in enumerate(rows):
        first = next(iter(graphs.values()))[i]
        for ax, (name, found) in zip(axes[row], graphs.items(), strict=True):
            targets = strongest(found[i], edges)
            text = f"{_graph(ax, places, labels, targets):.0f} % within a class"
            if found[i] is not first:
                text += f", {agreement(targets, strongest(first, edges)):.0f} % as the teacher"
            ax.set_title(text if row else f"{name}\n{text}", fontsize=9)
        axes[row, 0].set_ylabel(f"{kind}\nlevels {i + 1} and {i + 2}")
    return made


def _graph(ax: Any, places: Tensor, labels: Tensor, targets: Tensor) -> float:
    """Arrows below coloured nodes; the share of arrows within a class, in per cent."""
    start = places[:, None].expand(*targets.shape, 2).flatten(0, 1)
    step = places[targets].flatten(0, 1) - start
    same = (labels[:, None] == labels[targets]).flatten()
    for which, colour, order in ((~same, "0.8", 1), (same, "0.25", 2)):
        x, y, dx, dy = torch.cat([start, step], 1)[which].T.numpy()
        ax.quiver(x, y, dx, dy, angles="xy", scale_units="xy", scale=1, width=0.004,
                  headwidth=5, color=colour, zorder=order)  # fmt: skip
    ax.scatter(*places.T.numpy(), c=labels.numpy(), cmap=CLASSES, s=42, zorder=3,
               edgecolors="white", linewidths=0.5)  # fmt: skip
    for (x, y), label in zip(places.tolist(), labels.tolist(), strict=True):
        ax.text(x, y, str(label), fontsize=5, ha="center", va="center", color="white", zorder=4)
    bare(ax)
    return 100.0 * float(same.float().mean())
