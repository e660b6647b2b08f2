"""All code of the README, of docs/ and of docstrings runs as it stands.

docs/integrations.md wants the libraries it is about: tests/integrations runs its blocks.
"""

import doctest
import importlib
import re
from pathlib import Path

import pytest
import torch
from support.documented import stage
from support.processes import group_of_one

import kdops

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"integrations.md"}
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if page.name not in ELSEWHERE and "```python" in page.read_text()
]
PACKAGE = Path(kdops.__file__).parent
MODULES = [
    ".".join(["kdops", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text() and "integrations" not in path.parts
]


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory):
    """A process group, for what is written for several."""
    with group_of_one(tmp_path_factory.mktemp("group")):
        yield


@pytest.fixture(autouse=True)
def files_lie_in_the_folder_of_the_test(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def blocks_of(page):
    """(line, code) of every python block."""
    text = page.read_text()
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
        yield text.count("\n", 0, match.start()) + 1, match.group(1)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page(page, tmp_path):
    given = stage(tmp_path)
    for line, code in blocks_of(page):
        # as many empty lines before it as the page has: an error names the line of the page
        exec(compile("\n" * line + code, str(page), "exec"), given)


def test_an_epoch_of_the_documented_loop_trains(tmp_path):
    """The namespace is no mock: what the first page runs changes the student."""
    given = stage(tmp_path)
    before = given["student"].fc.weight.detach().clone()
    code = dict(blocks_of(ROOT / "docs" / "getting-started.md"))
    exec(code[min(code)], given)
    assert not torch.equal(given["student"].fc.weight, before)
    assert len(given["history"]) == 2


class Illustrated(doctest.OutputChecker):
    """An example that shows no output may print some."""

    def check_output(self, want, got, options):
        return not want or super().check_output(want, got, options)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name, tmp_path):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(Illustrated(), optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(module, globs=vars(module) | stage(tmp_path)):
        runner.run(test)
    assert runner.summarize().failed == 0 < runner.tries
