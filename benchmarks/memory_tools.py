"""What the usual tools show of a program that has droppable memory, beside one that has as much ordinary memory.

    python benchmarks/memory_tools.py                       the table; seconds; needs memory cgroups
    python benchmarks/memory_tools.py --megabytes 50 --json

A child in a cgroup of its own waits, then fills 200 MB: a dict of bytes, or a cache with each of the two backings.
Shown is by how much each tool's figure grew. Where a tool is not installed here, its own published formula is computed
from the same files that it reads:

    docker stats     usage less inactive_file (v2), less total_inactive_file (v1): docker's cli, stats_helpers.go
    Kubernetes       container_memory_working_set_bytes, by the same formula: cadvisor, handler.go
    systemd          MemoryCurrent is memory.current (v2), memory.usage_in_bytes (v1): systemd.resource-control(5)
    Dask             a worker's process memory is psutil's RSS: distributed, worker_memory.py

The figures of the whole machine (`free`, MemAvailable) move with whatever else runs.

Then a cache fills a cgroup of that size, a fifth of its values are read again and again, and three waves of 30 % of the
limit come and go. Pages that the kernel finds read when it looks for memory move to `active_file`, which docker and
Kubernetes count.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from droppable._cgroup import MemoryCgroup

Figures = TypeVar("Figures")
MB = 1 << 20
ROOM_BYTES = 300 * MB
KINDS = {
    "dict": "kept = {}",
    "lazyfree": "kept = droppable.Cache(backing='lazyfree')",
    "droppable": "kept = droppable.Cache(backing='droppable')",
}
CHILD = """
import sys
import droppable
try:
    {make}
except droppable.UnsupportedError as error:
    print(error)
    sys.exit(0)
print("ready", flush=True)
sys.stdin.readline()
for number in range({count}):
    kept[number] = bytes([number % 255 + 1]) * {value_bytes}
print("done", flush=True)
sys.stdin.readline()
"""
WAVES = """
import random
import sys
import droppable
try:
    cache = droppable.Cache(backing={kind!r})
except droppable.UnsupportedError as error:
    print(error)
    sys.exit(0)

def ask(number):
    if cache.get(number) is None:
        cache[number] = bytes([number % 255 + 1]) * {value_bytes}

for number in range({count}):
    ask(number)
print("ready", flush=True)
sys.stdin.readline()
for wave in range(3):
    for held_bytes in (0, {wave_bytes}, 0):
        held = None  # of the last round
        held = bytearray(held_bytes)
        for position in range(0, held_bytes, 4096):
            held[position] = 1
        for round in range(20):
            for number in range({count} // 5):
                ask(number)
            for number in random.sample(range({count}), {count} // 10):
                ask(number)
print("done", flush=True)
sys.stdin.readline()
"""


@dataclass(frozen=True)
class Shown:
    """Bytes by which a tool's figure grew."""

    tool: str
    figure: str
    grown_bytes: int

    @property
    def name(self) -> str:
        return f"{self.tool}: {self.figure}"

    @property
    def grown(self) -> str:
        return f"{self.grown_bytes / MB:.0f}"


def _table(path: str, unit: int = 1024) -> dict[str, int]:
    rows = (line.replace(":", " ").split() for line in Path(path).read_text().splitlines()[: 1 << 10])
    return {row[0]: int(row[1]) * unit for row in rows if len(row) > 1 and row[1].isdigit()}


def _read(pid: int, group: MemoryCgroup) -> Mapping[tuple[str, str], int]:
    status, smaps = _table(f"/proc/{pid}/status"), _table(f"/proc/{pid}/smaps_rollup")
    machine, stat = _table("/proc/meminfo"), group.stat()
    inactive_file_bytes = stat["inactive_file"] if group.version == 2 else stat["total_inactive_file"]
    working_set_bytes = max(0, group.usage_bytes - inactive_file_bytes)
    return {
        ("ps, top, htop, psutil", "RSS, RES, `memory_info().rss`"): status["VmRSS"],
        ("smem, psutil", "USS, `memory_full_info().uss`"): smaps["Private_Clean"] + smaps["Private_Dirty"],
        ("`/proc/PID/smaps`", "`LazyFree`"): smaps["LazyFree"],
        ("Dask", "process memory of a worker"): status["VmRSS"],
        ("systemd", "`MemoryCurrent`, `systemd-cgtop`"): group.usage_bytes,
        ("docker", "`docker stats`"): working_set_bytes,
        ("Kubernetes", "working set, `kubectl top`"): working_set_bytes,
        ("`free` since procps 4", "used"): machine["MemTotal"] - machine["MemAvailable"],
        ("psutil", "`virtual_memory().available`, as less of it"): -machine["MemAvailable"],
    }


def _before_and_after(
    group: MemoryCgroup, program: str, read: Callable[[int, MemoryCgroup], Figures]
) -> tuple[Figures, Figures] | str:
    """What read() gives when the program says "ready", and when it says "done"; or the reason that it gave instead."""
    child = group.popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        line = child.stdout.readline()
        if line != "ready\n":
            child.wait()
            return line.strip() or "the child ended"
        before = read(child.pid, group)
        child.stdin.write("\n")
        if child.stdout.readline() != "done\n":
            raise RuntimeError("the child ended")
        after = read(child.pid, group)
    child.wait()
    return before, after


def measure(kind: str, filled_bytes: int) -> list[Shown] | str:
    """By how much each figure grew; or why there is no such backing here."""
    value_bytes = 100_000
    program = CHILD.format(make=KINDS[kind], count=filled_bytes // value_bytes, value_bytes=value_bytes)
    with MemoryCgroup.create(filled_bytes + ROOM_BYTES) as group:
        seen = _before_and_after(group, program, _read)
    if isinstance(seen, str):
        return seen
    before, after = seen
    return [Shown(*name, after[name] - before[name]) for name in before]


def after_waves(kind: str, limit_bytes: int) -> tuple[dict[str, int], dict[str, int]] | str:
    """Usage, inactive_file and active_file of a cgroup that a cache fills: at the start, and after the waves."""
    value_bytes = 65_000
    program = WAVES.format(
        kind=kind, count=limit_bytes * 5 // 4 // value_bytes, value_bytes=value_bytes, wave_bytes=limit_bytes * 3 // 10
    )
    with MemoryCgroup.create(limit_bytes) as group:
        return _before_and_after(group, program, lambda _, group: _usage(group))


def _usage(group: MemoryCgroup) -> dict[str, int]:
    stat, prefix = group.stat(), "" if group.version == 2 else "total_"
    return {"usage": group.usage_bytes, **{name: stat[prefix + name] for name in ("inactive_file", "active_file")}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    filled_bytes = arguments.megabytes * MB
    measured = {kind: measure(kind, filled_bytes) for kind in KINDS}
    waves = {kind: after_waves(kind, filled_bytes) for kind in ("lazyfree", "droppable")}
    if arguments.json:
        told = {
            kind: shown if isinstance(shown, str) else {each.name: each.grown_bytes for each in shown}
            for kind, shown in measured.items()
        }
        print(json.dumps({"filled_bytes": filled_bytes, "waves": waves, **told}, indent=1))
        return 0
    print(f"| tool | figure | {' | '.join(KINDS)} |\n|---|---|{'---|' * len(KINDS)}")
    first = measured["dict"]
    assert not isinstance(first, str)
    for number, row in enumerate(first):
        cells = ("-" if isinstance(shown, str) else shown[number].grown for shown in measured.values())
        print(f"| {row.tool} | {row.figure} | {' | '.join(cells)} |")
    print("\n| backing | moment | usage | inactive_file | active_file |\n|---|---|---|---|---|")
    for kind, seen in waves.items():
        for moment, figures in zip(("full", "after three waves"), () if isinstance(seen, str) else seen, strict=False):
            print(f"| {kind} | {moment} | {' | '.join(f'{bytes_ / MB:.0f}' for bytes_ in figures.values())} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
