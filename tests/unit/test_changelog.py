"""The changes that wait for the next release: each is a file of a known kind, in whole sentences."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
WAITING = sorted(path for path in (TOP / "changes").iterdir() if path.name != "README.md")
CONFIG = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["towncrier"]


@pytest.mark.parametrize("path", WAITING, ids=lambda path: path.name)
def test_a_change_is_of_a_known_kind_and_in_whole_sentences(path: Path) -> None:
    what, kind, suffix = path.name.split(".")
    assert what.startswith("+"), "without it, the name would stand in the changelog as the number of an issue"
    assert (kind in CONFIG["fragment"], suffix) == (True, "md")
    text = path.read_text()
    assert text.endswith(".\n")
    assert text.count("\n") == 1


def test_the_changelog_has_the_place_where_releases_begin() -> None:
    assert CONFIG["start_string"] in (TOP / CONFIG["filename"]).read_text()
    assert all(f"| `{kind}` |" in (TOP / "changes" / "README.md").read_text() for kind in CONFIG["fragment"])
