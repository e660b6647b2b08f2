"""What a reader would stumble over in the built site: `python docs/check_site.py build/docs`.

Every link leads to a file and an anchor that are there, no page needs the network to be shown, and
the search knows every public name. Prints what is wrong; `make docs` ends with it.
"""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loads = {"", "top"}, [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        is_link = tag == "a" or given.get("rel") in ("next", "prev", "index", "search", "author")
        (self.links if is_link else self.loads).extend(
            given[key] for key in ("href", "src") if given.get(key)
        )


def broken(root):
    """A line for each link that leads nowhere and each file that is loaded from elsewhere."""
    pages = {path.resolve(): Page(path) for path in sorted(root.rglob("*.html"))}
    if not pages:
        yield f"{root}: no pages"
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != "data":
                    yield f"{path.name}: loads {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{path.name}: {link}: no such file"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path.name}: {link}: no such anchor"


def unknown_to_search(root, names):
    """Those of the names that the search index does not list as objects, of whatever module."""
    text = (root / "searchindex.js").read_text(encoding="utf-8")
    objects = json.loads(re.fullmatch(r"Search\.setIndex\((.*)\);?", text, re.S)[1])["objects"]
    listed = {entry[-1] for entries in objects.values() for entry in entries}
    return [name for name in names if name not in listed]


def public_names():
    """What the packages say that they offer."""
    import kdops
    from kdops import distillers, training

    for package in (kdops, distillers, training):
        yield from package.__all__


def main(root):
    wrong = list(broken(root))
    wrong += [f"search: {name} is not known" for name in unknown_to_search(root, public_names())]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
