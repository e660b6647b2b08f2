"""Pictures: each function's axes and words, and the numbers drawn against ones computed here."""

import sys

import numpy as np
import pytest
import torch

from kdops import pictures
from kdops.distillers import RKD, VID, SimilarityPreserving

pytest.importorskip("matplotlib")
B = 6
LABELS = torch.tensor([1, 0, 2, 1, 0, 2])


@pytest.fixture
def images():
    return torch.randn(B, 1, 12, 12)


@pytest.fixture
def networks():
    """Two levels of maps of a teacher and two students."""
    names = ("teacher", "before", "after")
    return {name: [torch.randn(B, 8, 6, 6), torch.randn(B, 16, 3, 3)] for name in names}


def drawn(ax, index=-1):
    """The numbers of an image of an axis."""
    return np.asarray(ax.images[index].get_array(), dtype=np.float64)


def same(found, expected):
    np.testing.assert_allclose(found, np.asarray(expected, dtype=np.float64), rtol=1e-4, atol=1e-5)


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


@pytest.mark.parametrize(("p", "reduce"), [(2, "sum"), (1, "max")])
def test_attention_maps(images, networks, p, reduce):
    figure = pictures.attention_maps(images, networks, p=p, reduce=reduce, count=4)
    grid = figure.axes[: 4 * 7]
    assert len(figure.axes) == 4 * 7 + 1  # and the scale
    assert titles(figure)[:3] == ["image", "teacher\nlevel 1", "teacher\nlevel 2"]
    assert figure.axes[-1].get_ylabel() == "attention / its largest value"
    powers = networks["before"][1].abs() ** p
    expected = powers.sum(1) if reduce == "sum" else powers.amax(1)
    for row in range(4):
        ax = grid[7 * row + 4]  # before, level 2
        same(drawn(ax), expected[row] / expected[row].max())
        assert ax.images[-1].get_extent() == [-0.5, 11.5, 11.5, -0.5]  # over the whole image
        low, high = images[row].min(), images[row].max()
        same(drawn(grid[7 * row]), (images[row, 0] - low) / (high - low))


def test_singular_vector_maps(images, networks):
    figure = pictures.singular_vector_maps(images, networks, level=0, k=2, count=3)
    assert len(figure.axes) == 3 * 7 + 1
    matrix = networks["after"][0].flatten(2).transpose(1, 2)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    share = 100 * (s**2 / (s**2).sum(1, keepdim=True)).mean(0)
    assert titles(figure)[5:7] == [f"after\nvector {c + 1} ({share[c]:.0f} %)" for c in range(2)]
    for row in range(3):
        for c in range(2):
            sign = torch.sign(vh[row, c].max() + vh[row, c].min())
            vector = sign * u[row, :, c].view(6, 6)
            same(drawn(figure.axes[7 * row + 5 + c]), vector / vector.abs().max())


def test_spectra(networks):
    figure = pictures.spectra(networks, energy=0.5)
    assert titles(figure) == ["level 1", "level 2"]
    for level, ax in enumerate(figure.axes):
        assert ax.get_xlabel() == "index of the singular value"
        for line, name in zip(ax.lines, networks, strict=True):
            values = torch.linalg.svdvals(networks[name][level].flatten(2))
            same(line.get_ydata(), (values / values[:, :1]).mean(0))
            held = (values**2).cumsum(1) / (values**2).sum(1, keepdim=True)
            needed = torch.tensor([int((row >= 0.5).nonzero()[0]) + 1.0 for row in held]).mean()
            assert line.get_label() == f"{name}: 50 % in {needed:.1f}"


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_fsp_matrices(networks, pool):
    figure = pictures.fsp_matrices(networks, pool=pool)
    assert titles(figure)[:3] == list(networks)
    shrink = {"max": torch.nn.functional.max_pool2d, "avg": torch.nn.functional.avg_pool2d}[pool]
    scales = set()
    for ax, (front, back) in zip(figure.axes, networks.values(), strict=False):
        expected = torch.einsum("bihw,bjhw->bij", shrink(front, 2), back) / 9
        same(drawn(ax), expected.mean(0))
        assert (ax.get_ylabel(), ax.get_xlabel()) == ("channels of level 1", "channels of level 2")
        scales.add(ax.images[0].get_clim())
    assert len(scales) == 1
    with pytest.raises(ValueError, match="needs at least 2 levels, got 1"):
        pictures.fsp_matrices({"teacher": networks["teacher"][:1]})


def test_similarity_matrices(networks):
    figure = pictures.similarity_matrices(networks, LABELS)
    order = [1, 4, 0, 3, 2, 5]
    for ax, (name, levels) in zip(figure.axes, networks.items(), strict=False):
        q = levels[-1].flatten(1)[order]
        rows = q @ q.T
        same(drawn(ax), rows / rows.norm(dim=1, keepdim=True))
        assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "2"]
        assert sorted({float(line.get_ydata()[0]) for line in ax.lines[::2]}) == [1.5, 3.5]
        loss = 1000 * SimilarityPreserving(1.0)(levels[-1], networks["teacher"][-1])
        told = name if name == "teacher" else f"{name}\n1000 x SP loss: {loss:.3f}"
        assert ax.get_title() == told


def test_rkd_histograms():
    x, y = torch.randn(B, 5, dtype=torch.float64), torch.randn(B, 3, dtype=torch.float64)
    figure = pictures.rkd_histograms({"teacher": x, "student": y}, bins=10)
    left, right = figure.axes
    for i, rows in enumerate((x, y)):
        d = [float((rows[a] - rows[b]).norm()) for a in range(B) for b in range(a + 1, B)]
        d = np.array(d) / np.mean(d)
        edges = left.patches[i].get_data().edges
        d = np.minimum(d, edges[-1])  # in fp32 the largest distance lies on it
        same(left.patches[i].get_data().values, np.histogram(d, edges, density=True)[0])
        angles = [
            float(torch.nn.functional.cosine_similarity(rows[j] - rows[i], rows[k] - rows[i], 0))
            for i in range(B)
            for j in range(B)
            for k in range(j + 1, B)
            if i not in (j, k)
        ]
        edges = right.patches[i].get_data().edges
        same(right.patches[i].get_data().values, np.histogram(angles, edges, density=True)[0])
    distance, angle = (float(RKD(*w)(y.float(), x.float())) for w in ((1, 0), (0, 1)))
    found = [[text.get_text() for text in ax.get_legend().texts] for ax in (left, right)]
    assert found[0] == ["teacher", f"student: loss {distance:.4f}"]
    assert found[1] == ["teacher", f"student: loss {angle:.4f}"]


def test_vid_heat_maps(images, networks):
    teacher = [torch.randn(B, 12, 6, 6), torch.randn(B, 10, 3, 3)]
    networks = {**networks, "teacher": teacher}
    methods = {name: VID([8, 16], [12, 10], initial_variance=v) for name, v in
               (("before", 2.0), ("after", 0.7))}  # fmt: skip
    figure = pictures.vid_heat_maps(methods, images, networks, count=2)
    assert len(figure.axes) == 2 * 5 + 2  # a scale per level
    for column, (level, name) in enumerate([(0, "before"), (0, "after"), (1, "before")], 1):
        with torch.no_grad():
            mean = methods[name].means[level](networks[name][level])
        variance = torch.nn.functional.softplus(methods[name].alphas[level].detach()) + 1e-5
        normal = torch.distributions.Normal(mean, variance.sqrt().view(-1, 1, 1))
        expected = normal.log_prob(teacher[level]).mean(1)
        for row in range(2):
            same(drawn(figure.axes[5 * row + column]), expected[row])
        told = f"{name}\nlevel {level + 1}: {expected.mean():.2f}"
        assert figure.axes[column].get_title() == told


BAD = {
    "no mapping": (torch.ones(2, 3), "expected features as a mapping .* got Tensor"),
    "nothing": ({}, r"names of 1 or more networks .* got \[\]"),
    "levels": ({"a": [torch.ones(2, 3)], "b": [torch.ones(2, 3)] * 2}, "as many levels"),
    "batches": ({"a": torch.ones(2, 3), "b": torch.ones(4, 3)}, "as many levels and samples"),
}


@pytest.mark.parametrize("kind", BAD)
def test_features_that_do_not_fit(kind):
    features, message = BAD[kind]
    with pytest.raises(ValueError, match=f"rkd_histograms: .*{message}"):
        pictures.rkd_histograms(features)


def test_tokens_are_no_maps(images):
    with pytest.raises(ValueError, match=r"level 0: expected maps \(B, C, H, W\), got \[6, 4, 9\]"):
        pictures.attention_maps(images, {"teacher": torch.ones(B, 4, 9)})


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib, or 'kdops\[pictures\]'"):
        pictures.rkd_histograms({"teacher": torch.randn(4, 3)})


def test_no_global_state(networks):
    """pyplot keeps every figure it makes: pictures must not come near it."""
    before = "matplotlib.pyplot" in sys.modules
    pictures.spectra(networks)
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_degenerate_features_are_drawn(images, tmp_path):
    """Dead maps and equal samples have no NaN and no warning."""
    maps = [torch.zeros(B, 8, 4, 4), torch.ones(B, 8, 2, 2)]
    named = {"teacher": maps, "student": maps}
    spectra = pictures.spectra(named)
    for figure in (
        pictures.attention_maps(images, named, count=1),
        pictures.singular_vector_maps(images, named, level=0, k=1, count=1),
        pictures.fsp_matrices(named),
        pictures.similarity_matrices(named, LABELS, level=0),
        pictures.rkd_histograms(named),
        spectra,
    ):
        for ax in figure.axes:
            assert all(np.isfinite(drawn(ax, i)).all() for i in range(len(ax.images)))
            assert all(np.isfinite(line.get_ydata()).all() for line in ax.lines)
    spectra.savefig(tmp_path / "spectra.png", dpi=20)  # nothing to show on a logarithmic scale


def test_class_probabilities():
    y = torch.tensor([2, 0, 1, 0])
    logits = {name: torch.randn(4, 3) for name in ("teacher", "student")}
    figure = pictures.class_probabilities(logits, y, temperature=2.0)
    p = (logits["student"] / 2).softmax(1)
    for row, samples in enumerate(([1, 3], [2], [0])):  # of classes 0, 1, 2
        others = [c for c in range(3) if c != row]
        given = p[samples][:, others]
        expected = (given / given.sum(1, keepdim=True)).mean(0)
        same(drawn(figure.axes[1])[row, others], expected)
        assert torch.isnan(torch.as_tensor(drawn(figure.axes[1]))[row, row])
    q = (logits["teacher"] / 2).softmax(1)
    loss = 4 * (q * (q / p).log()).sum(1).mean()
    assert titles(figure)[:2] == ["teacher", f"student\nT² KL: {loss:.2f}"]
    with pytest.raises(ValueError, match=r"student: expected logits \(B, classes\).*\[4, 3\]"):
        pictures.class_probabilities({"teacher": logits["teacher"], "student": torch.ones(4, 2)}, y)


def test_channel_correlations(networks):
    figure = pictures.channel_correlations(networks)
    first = next(iter(networks.values()))[-1]
    for ax, levels in zip(figure.axes, networks.values(), strict=False):
        rows = [x.movedim(1, -1).flatten(0, -2) for x in (levels[-1], first)]
        both = torch.cat(rows, 1).T
        same(drawn(ax), torch.corrcoef(both)[: len(rows[0].T), len(rows[0].T) :])
    assert "RSD" not in titles(figure)[0]
    same(drawn(figure.axes[0]).diagonal(), torch.ones(first.shape[1]))
    few = {"teacher": torch.randn(5, 4), "student": torch.randn(5, 3)}  # no diagonal of these
    assert titles(pictures.channel_correlations(few))[1] == "student"
    with pytest.raises(ValueError, match="student: expected positions like those"):
        pictures.channel_correlations({"teacher": torch.ones(5, 4, 2), "student": torch.ones(5, 4)})
