"""Writes what docs/methods.md says of every method, from the classes and their families' pages.

`make methods`, after a distiller was added: its row of the table, and its name beside its family.
"""

import re
from pathlib import Path

from kdops import distillers

DOCS = Path(__file__).parent


def written(text):
    """The text of methods.md with both of its lists made anew."""
    for page in DOCS.glob("methods/*.md"):
        names = ", ".join(re.findall(r"^## (\w+)$", page.read_text(), re.M))
        row = rf"^(\| \[.*\]\(methods/{page.name}\) \|.*\|) .* \|$"
        text = re.sub(row, lambda found, names=names: f"{found[1]} {names} |", text, flags=re.M)
    begin, end = "<!-- table:begin -->\n", "\n<!-- table:end -->"
    before, after = text.partition(begin)[0], text.partition(end)[2]
    return before + begin + distillers.table() + end + after


if __name__ == "__main__":
    target = DOCS / "methods.md"
    target.write_text(written(target.read_text()))
