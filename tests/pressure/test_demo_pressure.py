"""What the demo must show, on a part of its stream: the dict is OOM-killed; droppable is not, and hits as often.

<mount>/droppable-<pid>-<token>     what the programs need + 12 MB, no swap; neighbours take up to 7.2 MB of these
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from droppable._cgroup import MemoryCgroup

DEMO = Path(__file__).parents[2] / "demo"


def test_the_dict_is_killed_and_droppable_hits_as_often_as_the_hand_sized_cache(
    memory_cgroup: Callable[..., MemoryCgroup], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("cachetools", "matplotlib", "pygments", "rich"):
        pytest.importorskip(name, reason=f"the demo needs {name} (pip install '.[demo]')")
    memory_cgroup(1 << 20).close()  # skips where none can be made
    monkeypatch.syspath_prepend(DEMO)
    arguments = ["--requests", "800", "--memory", "12M", "--seconds", "600", "--output", str(tmp_path)]
    assert importlib.import_module("demo").main(arguments) == 0
    runs = {run["way"]: run for run in json.loads((tmp_path / "demo.json").read_text())["runs"]}
    assert runs["dict"]["victim"] == "the worker"
    assert runs["dict"]["oom_kills"] >= 1
    assert runs["droppable"]["victim"] is None
    assert runs["droppable"]["oom_kills"] == 0
    hits = {way: sum(request["hit"] for request in run["requests"]) for way, run in runs.items()}
    assert len(runs["droppable"]["requests"]) == 800
    assert hits["droppable"] >= hits["cachetools"]
