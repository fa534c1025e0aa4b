"""The tutorial's program for `droppable run` does under a limit what the tutorial says."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from droppable._cgroup import MemoryCgroup

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
END_SECONDS = 300.0


def test_the_tutorials_program_lives_under_its_limit(
    tmp_path: Path, memory_cgroup: Callable[..., MemoryCgroup]
) -> None:
    memory_cgroup(100_000_000).close()  # or skip: none can be made here
    text = TUTORIAL.read_text()
    (program,) = re.findall(r"^```python file=crowd.py\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    (command,) = re.findall(r"^\$ droppable (run .*) -- python crowd.py$", text, flags=re.MULTILINE)
    (tmp_path / "crowd.py").write_text(program)
    argv = [sys.executable, "-m", "droppable", *command.split(), "--", sys.executable, "crowd.py"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=END_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ *OOM kills +0$", done.stderr, flags=re.MULTILINE), done.stderr
    found = int(done.stdout.removeprefix("found again:"))
    assert 0 < found < 105  # values of 1 MB in 100 MiB
