"""The command that draws the gallery, in miniature."""

import sys

import pytest

from kdops.demo.data import digits
from kdops.pictures import gallery
from kdops.study.course import Course

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


def test_every_picture_has_its_networks(monkeypatch):
    monkeypatch.setattr(gallery, "FIT_STEPS", 2)
    studio = gallery.Studio(Course(digits(40, 40), batch=20, epochs=1), each=2)
    for name, draw in gallery.PICTURES.items():
        figure = draw(studio)
        words = " ".join(ax.get_title() for ax in figure.axes)
        legends = [ax.get_legend() for ax in figure.axes]
        words += " ".join(t.get_text() for legend in legends if legend for t in legend.texts)
        words = words.replace("\n", " ")
        for network in ("student alone", "student with "):
            assert network in words, name
    assert len(studio.images) == 20
    assert studio.labels[studio.shown].tolist() == list(range(6))


def test_the_command_draws_what_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "usual_images", lambda: digits(50, 50))
    assert gallery.main(["--out", str(tmp_path), "--epochs", "1", "--only", "rkd"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["rkd.png"]
    assert (tmp_path / "rkd.png").stat().st_size > 5_000


def test_it_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert gallery.main(["--epochs", "1"]) == 2
    assert "kdops pictures: kdops.pictures draws with matplotlib" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gallery.main(["--only", "nothing"])
