"""The examples of the pages about adapters run, each in a process of its own, where their libraries are installed."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in sorted(TOP.glob("docs/adapters*.md"))
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_example_runs(block: str) -> None:
    for library in set(re.findall(r"^(?:from|import) (\w+)", block, flags=re.MULTILINE)):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed: `make adapters` installs it")
    ran = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
