"""Does a cache grow back when memory pressure is over? Hits before, during and after, beside a dozen lines of Python.

    python benchmarks/cache_recovery.py                     five minutes; needs memory cgroups
    python benchmarks/cache_recovery.py --out recovery.json
    python benchmarks/cache_recovery.py --only wave --rounds 3 --miss-ms 0

Each run has a process in a cgroup of its own, without swap. It asks for keys by Zipf's law (0.9) out of 375 MB of
values, and sets what is missing after the 2 ms that computing it takes (it sleeps). The requests come in phases of as
many each; between two phases the memory changes:

    wave             200 MB; the process takes 80 MB of ordinary memory for the second of three phases
    neighbour leaves 200 MB, of which 80 MB are taken for the first two of four phases
    limit raised     120 MB for the first two of four phases, then 300 MB
    page cache       200 MB; before the second of three phases a file as large as the limit is read, once
    waves of 4 KB    200 MB; three waves of 80 MB, each between two phases without; values of 4 KB instead of 64 KB

The peers: droppable; the simple way, below: a dict of mappings of their own that are marked with MADV_FREE, so the
kernel alone decides what goes; an LRU in a dict, whose size somebody worked out beforehand: what is left of the least
memory when the process itself and a margin have theirs.

What counts is what comes after the pressure: there the simple way holds whatever fits, because it never evicts. Bias:
written by those who wrote droppable; the simple way is given values of whole pages only, and pays for a mapping each.
"""

import argparse
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from measure import Goal, write, zipf

MB = 1 << 20
VALUES_BYTES = 375 * MB
LIMIT_BYTES, WAVE_BYTES = 200 * MB, 80 * MB
REQUESTS = {65536: 10_000, 4096: 150_000}
"""Bytes of a value: requests of a phase."""
DROPPABLE, SIMPLE, FIXED = "droppable", "simple way", "LRU, sized by hand"
PEERS = (DROPPABLE, SIMPLE, FIXED)
LEAST_SHARE = 0.99
"""Of the simple way's hits after the pressure."""


@dataclass(frozen=True)
class Phase:
    """What holds while its requests come."""

    taken_bytes: int = 0
    limit_bytes: int = LIMIT_BYTES
    reads_file: bool = False
    counts: bool = False
    """It comes after pressure: its hits are compared."""


@dataclass(frozen=True)
class Situation:
    """Phases, in turn."""

    name: str
    phases: tuple[Phase, ...]
    value_bytes: int = 65536


FREE, AFTER, WAVE = Phase(), Phase(counts=True), Phase(taken_bytes=WAVE_BYTES)
SITUATIONS = (
    Situation("wave", (FREE, WAVE, AFTER)),
    Situation("neighbour leaves", (WAVE, WAVE, AFTER, AFTER)),
    Situation(
        "limit raised",
        (*(Phase(limit_bytes=120 * MB),) * 2, *(Phase(limit_bytes=300 * MB, counts=True),) * 2),
    ),
    Situation("page cache", (FREE, Phase(reads_file=True, counts=True), AFTER)),
    Situation("waves of 4 KB", (FREE, WAVE, AFTER, WAVE, AFTER, WAVE, AFTER), 4096),
)


# In the child


class Peer(Protocol):
    """What is asked of a cache here."""

    def get(self, key: int) -> bytes | None: ...
    def set(self, key: int, value: bytes) -> None: ...


class SimpleWay:
    """Each value in a mapping of its own, marked. A page whose first 16 bytes are zeros was dropped."""

    def __init__(self) -> None:
        self._mappings: dict[int, mmap.mmap] = {}

    def get(self, key: int) -> bytes | None:
        mapping = self._mappings.get(key)
        value = bytes(mapping) if mapping is not None else b""
        lost = any(value[at : at + 16] == bytes(16) for at in range(0, len(value), mmap.PAGESIZE))
        return value if value and not lost else None

    def set(self, key: int, value: bytes) -> None:
        mapping = self._mappings.get(key)
        if mapping is None:
            mapping = self._mappings[key] = mmap.mmap(-1, len(value), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        mapping[:] = value
        mapping.madvise(8)  # MADV_FREE, for which the mmap module has no name


class FixedLru:
    """As many values as fit."""

    def __init__(self, size_bytes: int, value_bytes: int) -> None:
        self._count = max(1, size_bytes // value_bytes)
        self._values: OrderedDict[int, bytes] = OrderedDict()

    def get(self, key: int) -> bytes | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def set(self, key: int, value: bytes) -> None:
        self._values[key] = value
        if len(self._values) > self._count:
            self._values.popitem(last=False)


def make_peer(name: str, situation: Situation, base_bytes: int) -> Peer:
    if name == DROPPABLE:
        import droppable

        return droppable.Cache()
    if name == SIMPLE:
        return SimpleWay()
    least_bytes = min(phase.limit_bytes - phase.taken_bytes for phase in situation.phases)
    return FixedLru(least_bytes - base_bytes - least_bytes // 8, situation.value_bytes)


def take(ordinary: mmap.mmap | None, bytes_: int) -> mmap.mmap | None:
    """Ordinary memory: so much from now on. What is there stays."""
    if ordinary is not None and len(ordinary) == bytes_:
        return ordinary
    if ordinary is not None:
        ordinary.close()
    if bytes_ == 0:
        return None
    ordinary = mmap.mmap(-1, bytes_, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, bytes_, mmap.PAGESIZE):
        ordinary[at] = 1
    return ordinary


def read_file(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(MB):
            pass


def serve(situation: Situation, peer: str, base_bytes: int, miss_seconds: float, file: Path) -> dict[str, Any]:
    """Plays the phases; the parent says when the next one begins, and sets its limit before. Hit ratio by phase."""
    size = situation.value_bytes
    count = REQUESTS[size]
    keys = zipf(VALUES_BYTES // size, count * len(situation.phases)).tolist()
    page = os.urandom(mmap.PAGESIZE - 8)
    cache = make_peer(peer, situation, base_bytes)
    ordinary: mmap.mmap | None = None
    ratios, wrong = [], 0
    start = time.monotonic()
    for number, phase in enumerate(situation.phases):
        print("ready", flush=True)
        sys.stdin.readline()
        ordinary = take(ordinary, phase.taken_bytes)
        if phase.reads_file:
            read_file(file)
        hits = 0
        for key in keys[number * count : (number + 1) * count]:
            name = key.to_bytes(8, "big")
            value = cache.get(key)
            if value is None:
                if miss_seconds:
                    time.sleep(miss_seconds)
                cache.set(key, (name + page) * (size // mmap.PAGESIZE))
            else:
                hits += 1
                wrong += value[:8] != name or value[-mmap.PAGESIZE : 8 - mmap.PAGESIZE or None] != name
        ratios.append(hits / count)
    return {"ratios": ratios, "wrong": wrong, "seconds": time.monotonic() - start}


# In the parent


@dataclass(frozen=True)
class Row:
    """One situation and peer: the median hit ratio of each phase over the rounds; of those that count, their mean."""

    situation: str
    peer: str
    ratios: list[float]
    after: float
    wrong: int
    oom_kills: int
    runs: list[dict[str, Any]]


def run(situation: Situation, peer: str, miss_seconds: float, directory: Path) -> dict[str, Any]:
    from droppable._cgroup import MemoryCgroup

    file = directory / "file"
    if any(phase.reads_file for phase in situation.phases) and not file.exists():
        with file.open("wb") as out:
            for _ in range(LIMIT_BYTES // MB):
                out.write(os.urandom(MB))
            os.fsync(out.fileno())
            os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # to be charged to who reads it
    with MemoryCgroup.create(max(phase.limit_bytes for phase in situation.phases)) as group:
        command = [sys.executable, __file__, "--child", situation.name, peer, str(miss_seconds), str(file)]
        child: subprocess.Popen[str] = group.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdin
        assert child.stdout
        child.stdout.readline()
        child.stdin.write(f"{group.usage_bytes}\n")
        child.stdin.flush()
        for phase in situation.phases:
            if not child.stdout.readline():
                break
            if group.limit_bytes != phase.limit_bytes:
                group.limit_bytes = phase.limit_bytes
            child.stdin.write("\n")
            child.stdin.flush()
        output, _ = child.communicate()
        if file.exists():
            with file.open("rb") as read:
                os.posix_fadvise(read.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return {"oom_kills": group.oom_kills, **(json.loads(output) if output else {"ratios": [], "wrong": 0})}


def measure_one(
    situation: Situation, rounds: int, miss_seconds: float, directory: Path, peers: Sequence[str]
) -> list[Row]:
    """The peers take turns."""
    runs: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    for number in range(rounds):
        for place in range(len(peers)):
            peer = peers[(place + number) % len(peers)]
            runs[peer].append(run(situation, peer, miss_seconds, directory))
    rows = []
    for peer, of_peer in runs.items():
        lived = [one["ratios"] for one in of_peer if one["ratios"]]
        ratios = [round(statistics.median(column), 4) for column in zip(*lived, strict=True)]
        counted = [ratio for ratio, phase in zip(ratios, situation.phases, strict=False) if phase.counts]
        row = Row(
            situation.name, peer, ratios, round(statistics.fmean(counted), 4) if counted else 0.0,
            sum(one["wrong"] for one in of_peer), sum(one["oom_kills"] for one in of_peer), of_peer,
        )  # fmt: skip
        shown = " ".join(f"{ratio:.3f}" for ratio in ratios) or "killed"
        print(f"{row.situation:<17}{row.peer:<20}{shown}   after {row.after:.3f}  wrong {row.wrong}"
              f"  OOM kills {row.oom_kills}", flush=True)  # fmt: skip
        rows.append(row)
    return rows


def judge(rows: Sequence[Row]) -> list[Goal]:
    goals = []
    simple = {row.situation: row for row in rows if row.peer == SIMPLE}
    for row in rows:
        peer = simple.get(row.situation)
        if row.peer != DROPPABLE or not peer or not peer.after:
            continue
        share = row.after / peer.after
        measured = f"{share:.3f} ({row.after:.3f} and {peer.after:.3f})"
        goals.append(Goal(f"recovery, {row.situation}", f">= {LEAST_SHARE}", measured, share >= LEAST_SHARE))
    return goals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [situation.name for situation in SITUATIONS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these situations")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, help="these peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--miss-ms", type=float, default=2.0, help="what computing a value takes")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, peer, miss_seconds, file = arguments.child
        print("ready", flush=True)
        base_bytes = int(sys.stdin.readline())
        situation = next(one for one in SITUATIONS if one.name == name)
        print(json.dumps(serve(situation, peer, base_bytes, float(miss_seconds), Path(file))))
        return 0
    from droppable._cgroup import CgroupUnavailableError

    rows = []
    try:
        with tempfile.TemporaryDirectory(prefix="droppable-bench-") as directory:
            for situation in SITUATIONS:
                if situation.name in arguments.only:
                    rows += measure_one(
                        situation, arguments.rounds, arguments.miss_ms / 1e3, Path(directory), arguments.peers
                    )
    except CgroupUnavailableError as error:
        print(f"SKIP: {error}")
        return 0
    print()
    write(arguments.out, {"limit_bytes": LIMIT_BYTES, "rows": [asdict(row) for row in rows]}, judge(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
