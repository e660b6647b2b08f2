"""docs/conf.py: what becomes of docstrings and pages on the way to the site."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
CONF = runpy.run_path(str(DOCS / "conf.py"))


def shown(docstring, what="function"):
    lines = docstring.split("\n")
    CONF["as_written"](None, what, "", None, {}, lines)
    return lines


def test_breaks_of_the_column_are_taken_back_and_others_stay():
    long = "word " * 18 + "end"  # 93 columns: another word does not fit
    text = f"First.\n\nArgs:\n    x: a number.\n{long}\nnext, continued\nL = Σ x"
    start = ["| First.", "|", "| Args:", "|     x: a number."]
    assert shown(text) == [*start, f"| {long} next, continued", "| L = Σ x", ""]


def test_examples_are_code_with_what_they_print():
    text = "First.\n\n>>> f(1)\n2\n\nLast."
    code = ["", ".. code-block:: pycon", "", "    >>> f(1)", "    2", ""]
    assert shown(text) == ["| First.", *code, "|", "| Last.", ""]


def test_nothing_but_code_is_markup():
    assert shown("(B, *S), x_i, |A|, `fit` and ``fit``.")[0] == (
        r"| (B, \*S), x\_i, \|A\|, \ ``fit``\  and \ ``fit``\ ."
    )


def page(name, text):
    source = [text]
    CONF["for_the_site"](None, name, source)
    return source[0]


def test_links_out_of_the_site_are_paths():
    assert page("performance", "[how](../benchmarks/README.md)") == "how (`benchmarks/README.md`)"
    assert page("methods/gram", "[SVD](../svd.md#x)") == "[SVD](../svd.md#x)"


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("methods", "| RKD | yes |", "| [RKD](methods/relations.md#rkd) | yes |"),
        ("operators", "| `gram` | x |", "| {py:obj}`gram <kdops.gram>` | x |"),
        ("migration", "| RKD | yes |", "| RKD | yes |"),
    ],
)
def test_tables_link_to_what_they_name(name, row, said):
    assert page(name, row) == said
