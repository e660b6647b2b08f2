"""The documentation site: `make docs` builds it into build/docs, warnings are errors."""

import re
from pathlib import Path

import kdops

project, author, copyright = "kdops", "the kdops authors", "the kdops authors"
version = release = kdops.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"kdops {version}"
html_static_path, html_css_files = ["style"], ["site.css"]
html_show_sourcelink = html_show_copyright = False
autodoc_member_order = "alphabetical"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
pygments_style = "default"
smartquotes = False  # "code" is code

DOCS = Path(__file__).resolve().parent
WIDTHS = {"module": 98, "method": 90}  # to which docstrings are filled, or nearly; 94 for all else
FAMILIES = {
    name: f"methods/{page.name}#{name.lower()}"
    for page in DOCS.glob("methods/*.md")
    for name in re.findall(r"^## (\w+)$", page.read_text(), re.M)
}


def for_the_site(app, name, source):
    """Pages link to files of the repository, which the site does not have: their paths stay. The
    tables of methods and operators get links to what is said about them."""

    def path_alone(link):
        target = ((DOCS / name).parent / link[2]).resolve()
        inside = target.is_relative_to(DOCS)
        return link[0] if inside else f"{link[1]} (`{target.relative_to(DOCS.parent)}`)"

    source[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)#]+)\)", path_alone, source[0])
    if name == "methods":
        for method, section in FAMILIES.items():
            source[0] = source[0].replace(f"| {method} |", f"| [{method}]({section}) |")
    if name == "operators":
        source[0] = re.sub(r"^\| `(\w+)` \|", r"| {py:obj}`\1 <kdops.\1>` |", source[0], flags=re.M)


def as_written(app, what, name, obj, options, lines):
    """A docstring is text for a terminal. Here its lines end where they were meant to, not where
    the column ended, its indentation stays, and its examples are code."""
    out, example = [], False
    for line in unfilled(lines, WIDTHS.get(what, 94)):
        is_code = line.lstrip().startswith((">>> ", "... ")) or (example and bool(line.strip()))
        if is_code and not example:
            while out and out[-1] == "|":
                out.pop()
            out += ["", ".. code-block:: pycon", ""]
        elif example and not is_code:
            out += [""]
        out.append("    " + line.strip(" ") if is_code else f"| {marked(line)}".rstrip())
        example = is_code
    lines[:] = [*out, ""]


def unfilled(lines, width):
    """The lines, those joined between which there was merely no room for another word."""
    out, end = [], 0
    for line in lines:
        first = next(iter(line.split()), "")
        full = bool(first) and bool(out) and bool(out[-1]) and end + 1 + len(first) > width
        if full and first not in (">>>", "..."):
            out[-1] += " " + line.strip()
        else:
            out.append(line)
        end = len(line)
    return out


def marked(line):
    """Text for reStructuredText, in which nothing but code between backticks is markup."""
    parts = re.split(r"`{1,2}([^`]+)`{1,2}", line)
    plain = [re.sub(r"([\\*_|])", r"\\\1", part) for part in parts[::2]]
    code = [f"\\ ``{part}``\\ " for part in parts[1::2]]
    return "".join(x for pair in zip(plain, [*code, ""], strict=True) for x in pair)


def setup(app):
    app.connect("source-read", for_the_site)
    app.connect("autodoc-process-docstring", as_written)
