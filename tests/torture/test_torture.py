"""Four threads use a cache of every kind and size of value while the kernel takes random pages of it all the time.

life.py has what they do and how each answer is looked at. `make torture` does the same for as long as one likes, in
processes that are stopped, killed and squeezed: two such processes run here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from . import life

OPERATIONS = 1_000_000  # over all configurations
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "lazyfree": {"backing": "lazyfree"},
    "droppable": {"backing": "droppable"},
    "lazyfree-narrow": {"backing": "lazyfree", "layout": life.NARROW},
    "droppable-narrow": {"backing": "droppable", "layout": life.NARROW},
    "lazyfree-bounded": {"backing": "lazyfree", "max_bytes": 24 << 20},
    "droppable-bounded": {"backing": "droppable", "max_bytes": 24 << 20},
}
OPERATIONS_EACH = -(-OPERATIONS // len(CONFIGURATIONS))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_not_one_wrong_byte(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if CONFIGURATIONS[name]["backing"] not in life.backings():
        pytest.skip(f"this kernel has no such backing, or drops no pages on order: {name}")
    torture = life.Life(life.Plan(0, CONFIGURATIONS[name], OPERATIONS_EACH))
    torture.run()
    assert not torture.failures, "\n".join(torture.failures)
    with capsys.disabled():
        print(f"\n{name}: {dict(torture.counts)}")
    assert torture.counts["hit"] > 0
    assert torture.counts["dropped pages"] > 0
    assert torture.counts["misses dropped"] > 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_process_to_which_everything_happens(seed: int) -> None:
    if not life.backings():
        pytest.skip("this kernel drops no pages on order")
    command = [sys.executable, "-m", "torture.driver", "--seconds", "0", "--seed", str(seed), "--operations", "8000"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "| values read and compared | 0 |" not in ran.stdout
