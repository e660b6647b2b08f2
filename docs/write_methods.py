"""Writes what README.md and docs/methods.md list of every method.

`make methods`, after a distiller was added: its row of the table, from the classes, and its name
beside its family, from the families' pages.
"""

import re
from pathlib import Path

from kdops import distillers

DOCS = Path(__file__).parent


def between(text, name, lines):
    """The text with these lines between its two markers of that name."""
    begin, end = f"<!-- {name}:begin -->\n", f"\n<!-- {name}:end -->"
    return text.partition(begin)[0] + begin + lines + end + text.partition(end)[2]


def methods_page(text):
    """docs/methods.md with both of its lists made anew."""
    for page in DOCS.glob("methods/*.md"):
        row = rf"^(\| \[.*\]\(methods/{page.name}\) \|.*\|) .* \|$"
        names = names_of(page)
        text = re.sub(row, lambda found, names=names: f"{found[1]} {names} |", text, flags=re.M)
    return between(text, "table", distillers.table())


def readme(text, methods):
    """README.md with the families of docs/methods.md."""
    rows = re.findall(r"^\| \[(.*)\]\((methods/\w+\.md)\) \| (.*) \|.*\|$", methods, re.M)
    lines = ["| family | what is compared | methods |", "|---|---|---|"]
    for family, page, compared in rows:
        lines.append(f"| [{family}](docs/{page}) | {compared} | {names_of(DOCS / page)} |")
    return between(text, "methods", "\n".join(lines))


def names_of(page):
    return ", ".join(re.findall(r"^## (\w+)$", page.read_text(), re.M))


if __name__ == "__main__":
    target = DOCS / "methods.md"
    target.write_text(methods_page(target.read_text()))
    front = DOCS.parent / "README.md"
    front.write_text(readme(front.read_text(), target.read_text()))
