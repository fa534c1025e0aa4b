"""The examples of the pages about adapters run, each in a process of its own, where their libraries are installed."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
REDIS = "/tmp/near.sock"


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A server that speaks Redis' protocol, at a place of its own."""
    path = str(folder / "redis.sock")
    command = [sys.executable, "-m", "droppable", "serve", "--unix", path, "--ready-fd", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        yield path
        server.terminate()


@pytest.mark.parametrize("block", BLOCKS)
def test_the_example_runs(block: str, tmp_path: Path) -> None:
    # An adapter has its library's name.
    for library in set(re.findall(r"^(?:from|import) (?:droppable\.adapters\.)?(\w+)", block, flags=re.MULTILINE)):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed: `make adapters` installs it")
    with redis_server(tmp_path) if REDIS in block else nullcontext(REDIS) as path:
        block = block.replace(REDIS, path)
        ran = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
