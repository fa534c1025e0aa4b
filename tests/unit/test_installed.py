"""What is in the tree of the package is in the package that gets installed: meson installs only what is named to it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

TOP = Path(__file__).parents[2]
SOURCE = TOP / "src" / "droppable"


def test_each_file_is_named_to_meson() -> None:
    there = {
        path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*") if path.suffix in {".py", ".pyi", ".typed"}
    }
    named = re.findall(r"'([\w/]+\.(?:pyi?|typed))'", (SOURCE / "meson.build").read_text())
    assert sorted(named) == sorted(there)


def test_a_warning_stops_our_builds_and_nobody_elses() -> None:
    """A newer compiler than those of the tests warns of more. gcc 16 did, and pip could install nothing."""
    settings = tomllib.loads((TOP / "pyproject.toml").read_text())
    assert "-Dwerror=false" in settings["tool"]["meson-python"]["args"]["setup"]
    assert "'werror=true'" in (TOP / "meson.build").read_text()
    commands = (TOP / "Makefile").read_text().replace("\\\n", "").splitlines()
    builds = [command for command in commands if "--config-settings=build-dir=" in command]
    assert builds
    assert all("-Dwerror=true" in command for command in builds)
