"""The programs in examples/: each runs to its end without a warning, says something, and is short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
EXAMPLES = sorted((TOP / "examples").glob("*.py"))
PROGRAMS = [path for path in EXAMPLES if not path.stem.endswith("_app")]  # those run in tests/adapters/test_web_apps.py
MOST_LINES = 40
NEEDS = {
    "arrays": ("numpy", "pandas"),
    "monitored": ("prometheus_client",),
    "shared_django": ("django",),
    "shared_loader": ("numpy",),
}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_the_example_runs(path: Path, tmp_path: Path) -> None:
    for library in NEEDS.get(path.stem, ()):
        pytest.importorskip(library, reason=f"{library} is not installed")
    by_pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if path.stem.startswith("test_") else []
    command = [sys.executable, "-B", "-W", "error", *by_pytest, str(path)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout or path.stem == "tile_server"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_is_short_and_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    assert text.startswith('"""')
