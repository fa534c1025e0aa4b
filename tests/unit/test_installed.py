"""What is in the tree of the package is in the package that gets installed: meson installs only what is named to it."""

from __future__ import annotations

import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "droppable"


def test_each_file_is_named_to_meson() -> None:
    there = {
        path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*") if path.suffix in {".py", ".pyi", ".typed"}
    }
    named = re.findall(r"'([\w/]+\.(?:pyi?|typed))'", (SOURCE / "meson.build").read_text())
    assert sorted(named) == sorted(there)
