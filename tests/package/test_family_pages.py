"""docs/methods/: every method has its section on one page, with what a reader looks for there."""

import re
import runpy
from collections import Counter
from pathlib import Path

import pytest

import kdops
from kdops import distillers

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "methods").glob("*.md"))
SECTIONS = [
    (page, *part.split("\n", 1))
    for page in PAGES
    for part in re.split(r"^## ", page.read_text(), flags=re.M)[1:]
]


def test_every_method_is_on_one_page():
    found = Counter(name for _, name, _ in SECTIONS)
    assert found == Counter(distillers.__all__)


@pytest.mark.parametrize(("page", "name", "text"), SECTIONS, ids=[name for _, name, _ in SECTIONS])
def test_a_section_says_all(page, name, text):
    said = text.split("```")[0].strip()
    assert said.endswith("."), f"{name}: a sentence of what it compares comes first"
    paper = getattr(distillers, name).paper.split(";")[0].split(",")[0]
    assert paper in " ".join(said.split()), f"{name}: the paper, {paper}, is not in it"
    assert re.search(r"^```text\n[^`]*\bL(_i)? = ", text, re.M), f"{name}: the formula"
    assert "- **Defaults**: " in text, f"{name}: the defaults"
    weight = f"{getattr(distillers, name).default_weight:g}"
    assert weight == "1" or re.search(rf"weight {weight}\b", text), f"{name}: weight {weight}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_one_example_and_is_linked(page):
    assert page.read_text().count("```python\n") == 1
    front = (DOCS / "methods.md").read_text()
    assert f"](methods/{page.name})" in front
    assert f"\nmethods/{page.stem}\n" in front


def test_the_lists_are_what_make_methods_writes():
    write = runpy.run_path(str(DOCS / "write_methods.py"))
    front, readme = (DOCS / "methods.md").read_text(), (DOCS.parent / "README.md").read_text()
    assert write["methods_page"](front) == front, "make methods"
    assert write["readme"](readme, front) == readme, "make methods"
    for gone in ("SoftTarget, DKD, ", "| KTA |"):  # of the families, of the table
        assert write["methods_page"](front.replace(gone, gone[:2])) == front
    assert write["readme"](readme.replace("SoftTarget, DKD, ", ""), front) == readme


def test_operators_named_as_the_work_exist():
    for page, name, text in SECTIONS:
        work = " ".join(re.findall(r"- \*\*Work\*\*: ((?:.|\n  )*)", text))
        for call in re.findall(r"`(\w+)`", work):
            assert call in (*kdops.__all__, "state_dict", "prepare"), f"{page.name}: {name}: {call}"
