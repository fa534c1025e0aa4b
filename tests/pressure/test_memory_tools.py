"""What docs/droppable_bytes.md says that the usual tools show, on the kernel and the cgroup version that run.

<mount>/droppable-<pid>-<token>     350 MB     a child that fills 50 MB; nothing is dropped
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from droppable._cgroup import CgroupUnavailableError, MemoryCgroup

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "memory_tools.py"
MB = 1 << 20
UNMARKED_BYTES = 4 * MB  # what was just written and is not marked yet, and the interpreter's own growth
COUNTED = ("ps, top, htop, psutil: RSS, RES, `memory_info().rss`", "systemd: `MemoryCurrent`, `systemd-cgtop`")
NOT_COUNTED = ("docker: `docker stats`", "Kubernetes: working set, `kubectl top`")


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    try:
        MemoryCgroup.create(50 * MB).close()
    except CgroupUnavailableError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--megabytes", "50", "--json"], stdout=subprocess.PIPE, check=True, timeout=600
    )
    told: dict[str, Any] = json.loads(done.stdout)
    assert told.pop("filled_bytes") == 50 * MB
    return told


@pytest.mark.parametrize("kind", ["lazyfree", "droppable"])
def test_after_pressure_part_of_it_is_counted_as_active(shown: Any, kind: str) -> None:
    seen = shown["waves"][kind]
    if isinstance(seen, str):
        pytest.skip(seen)
    full, after = seen
    assert full["active_file"] <= MB
    assert full["inactive_file"] >= full["usage"] // 2
    assert after["usage"] <= 50 * MB  # the limit
    assert after["inactive_file"] + after["active_file"] >= after["usage"] // 2


@pytest.mark.parametrize("kind", ["dict", "lazyfree", "droppable"])
def test_what_tools_show_of_a_full_cache(shown: Any, kind: str) -> None:
    grown = shown[kind]
    if isinstance(grown, str):
        pytest.skip(grown)
    for figure in COUNTED:
        assert 49 * MB <= grown[figure] <= 60 * MB, figure
    for figure in NOT_COUNTED:
        if kind == "dict":
            assert grown[figure] >= 49 * MB, figure
        else:
            assert -MB <= grown[figure] <= UNMARKED_BYTES, figure
