"""docs/check_site.py, which `make docs` runs on the built site, finds what it is there for."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

import kdops

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("check_site", ROOT / "docs" / "check_site.py")
site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site)


def pages(folder, **bodies):
    for name, body in bodies.items():
        (folder / f"{name}.html").write_text(f"<html><body>{body}</body></html>")
    return folder


def test_links_that_work(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    pages(
        tmp_path,
        one='<h1 id="x">1</h1><a href="two.html#y">2</a><img src="a.png"><a href="#">top</a>',
        two='<p id="y"><a href="one.html">1</a><a href="https://example.org/#z">elsewhere</a></p>',
    )
    assert list(site.broken(tmp_path)) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<a href="none.html">', "no such file"),
        ('<img src="none.png">', "no such file"),
        ('<a href="#none">', "no such anchor"),
        ('<a href="two.html#none">', "no such anchor"),
        ('<script src="https://example.org/maths.js">', "loads https"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "loads //"),
    ],
)
def test_links_that_do_not(tmp_path, body, said):
    (line,) = site.broken(pages(tmp_path, one=body, two="<p></p>"))
    assert line.startswith("one.html")
    assert said in line


def test_no_pages_at_all_are_wrong(tmp_path):
    assert list(site.broken(tmp_path))


def test_names_that_the_search_lacks(tmp_path):
    index = {"objects": {"": [[0, 0, 1, "", "kdops"]], "kdops": [[0, 1, 1, "", "gram"]]}}
    (tmp_path / "searchindex.js").write_text(f"Search.setIndex({json.dumps(index)})")
    assert site.unknown_to_search(tmp_path, ["gram", "fsp_loss"]) == ["fsp_loss"]


def test_public_names():
    assert {"gram", "RKD", "fit"} <= set(site.public_names())


def test_every_operator_is_on_its_page():
    text = (ROOT / "docs" / "operators.md").read_text()
    tools = {"FeatureTap", "backend", "build_info", "explain"}
    assert [n for n in kdops.__all__ if n not in tools and f"\n| `{n}` |" not in text] == []
    files = re.findall(r"`(kdops/ops/[\w/]+\.py)`", text)
    assert files
    assert all((ROOT / file).is_file() for file in files)
