"""What the documents name exists: commands and their options, targets of make, files, and names of
kdops with their dots."""

import importlib
import re
from pathlib import Path

import pytest

from kdops.__main__ import _COMMANDS

ROOT = Path(__file__).parents[2]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
}
ALL = "\n".join(TEXTS.values()).replace("\\\n", " ")


def codes(text):
    """What stands in backticks, and the lines of blocks of commands."""
    blocks = re.findall(r"^```(?:bash|text)?\n(.*?)^```$", text, re.M | re.S)
    return re.findall(r"`([^`\n]+)`", text) + "\n".join(blocks).splitlines()


@pytest.mark.parametrize("command", sorted({*_COMMANDS} - {"bench"}))
def test_options_of_commands(command, capsys):
    with pytest.raises(SystemExit):
        _COMMANDS[command](["--help"])
    printed = capsys.readouterr().out
    lines = re.findall(rf"python -m kdops {command}\b([^`#&|\n]*)", ALL)
    used = {option for line in lines for option in re.findall(r"--[\w-]+", line)}
    assert used <= set(re.findall(r"--[\w-]+", printed))
    studies = {line.split()[0] for line in lines if command == "study" and line.split()}
    assert [name for name in studies if not re.search(rf"[{{,]{name}[,}}]", printed)] == []


def test_commands():
    named = set(re.findall(r"python -m kdops ([a-z]\w*)", ALL))
    assert named
    assert named <= set(_COMMANDS)
    modules = set(re.findall(r"python -m (benchmarks(?:\.\w+)*)", ALL))
    assert modules
    assert [m for m in modules if not any(ROOT.glob(m.replace(".", "/") + "*"))] == []


def test_targets_of_make():
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    runs = [code for text in TEXTS.values() for code in codes(text)]
    used = [re.match(r"(?:\w+=\S+ )*make ((?:[a-z][a-z0-9-]* ?)+)", code) for code in runs]
    named = {target for match in used if match for target in match[1].split()}
    assert named
    assert named <= known


@pytest.mark.parametrize("page", TEXTS)
def test_files(page):
    named = re.findall(r"\b((?:examples|tests|benchmarks)/[\w/]+\.(?:py|sh|md))\b", TEXTS[page])
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", TEXTS)
def test_names_of_kdops(page):
    missing = []
    for name in re.findall(r"`(kdops(?:\.\w+)+)\b", TEXTS[page]):
        module, rest = importlib.import_module("kdops"), name.split(".")[1:]
        if rest[0] == "integrations":  # its libraries need not be installed
            found = (ROOT / "kdops" / "integrations" / f"{rest[-1]}.py").is_file() or len(rest) < 2
        else:
            found = reached(module, rest)
        missing += [] if found else [name]
    assert missing == []


def reached(thing, path):
    for part in path:
        if not hasattr(thing, part):
            try:
                importlib.import_module(f"{thing.__name__}.{part}")
            except (AttributeError, ImportError):
                return False
        thing = getattr(thing, part)
    return True
