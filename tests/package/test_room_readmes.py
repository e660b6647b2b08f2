"""Every room of csrc has a page that says which file is which; here: all of them, and no other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = sorted(entry.name for entry in (ROOT / "csrc").iterdir() if entry.is_dir())
SOURCES = (".h", ".cpp", ".cu", ".cuh")


def sources(folder):
    return {path.name for path in folder.rglob("*") if path.suffix in SOURCES}


@pytest.mark.parametrize("room", ROOMS)
def test_page_names_the_files_of_its_room(room):
    folder = ROOT / "csrc" / room
    page = (folder / "README.md").read_text()
    named = set(re.findall(r"`(?:[\w/]+/)?(\w+\.(?:h|cpp|cuh|cu))`", page))
    assert named <= sources(ROOT / "csrc")
    if room != "common":  # its page lists folders
        assert sources(folder) <= named
