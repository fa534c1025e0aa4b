"""A disk below a droppable cache, beside the disk alone: how long the requests take beyond the computations.

    python benchmarks/cache_tiers.py                     three minutes; needs memory cgroups and diskcache
    python benchmarks/cache_tiers.py --rounds 1 --out tiers.json

A process in a cgroup of 200 MB without swap asks for 6,000 values of 64 KB by Zipf's law (0.9), 24,000 times. Computing
a value takes 2 ms (it sleeps). For the second third of the requests the process holds 80 MB of ordinary memory. The
ways:

    disk                diskcache alone, as large as it wants to be
    tier, through       a droppable cache with diskcache below; a value is on the disk before it is returned
    tier, behind        the same; a thread writes to the disk

Time beyond: of the whole run, less 2 ms for each value that was computed. A hit of the upper tier is a look-up that
asked the disk for nothing. It is compared with a copy of as many bytes: at each fourth request 64 KB are also copied
from 32 MB of ordinary memory, which the limit has room for in addition, from a place that the key chooses. So both are
as cold as each other, behind a sleep or behind another hit. The rounds take turns. Bias: written by those who wrote
droppable; the disk is the machine's own, with its page cache in the same cgroup.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache_recovery import take
from measure import Goal, write, zipf

MB = 1 << 20
LIMIT_BYTES, WAVE_BYTES, SOURCE_BYTES = 200 * MB, 80 * MB, 32 * MB
KEYS, VALUE_BYTES, REQUESTS, MISS_SECONDS = 6_000, 65_536, 24_000, 0.002
DISK, THROUGH, BEHIND = "disk", "tier, through", "tier, behind"
COPY_CALLS = 4
MOST_SHARE, MOST_MORE_NS = 0.7, 1000.0


@dataclass(frozen=True)
class Row:
    """One way: medians over the rounds. hit_ns: of a look-up that the upper tier answered."""

    way: str
    beyond_seconds: float
    hits: float
    hit_ns: float
    copy_ns: float
    oom_kills: int
    wrong: int


def make(way: str, folder: Path) -> tuple[Callable[[bytes], Any], Callable[[bytes, bytes], Any], Callable[[], int]]:
    """How to get and set, and how many look-ups asked the disk so far."""
    import diskcache  # type: ignore[import-untyped,unused-ignore]

    disk = diskcache.Cache(str(folder), size_limit=1 << 40)
    if way == DISK:
        return disk.get, disk.set, lambda: 0
    import droppable

    cache: Any = droppable.Cache(below=disk, write="behind" if way == BEHIND else "through")

    def asked() -> int:
        stats = cache.tier_stats()
        return int(stats.fetched + stats.absent)

    return cache.get, cache.set, asked


def play(way: str, folder: Path) -> dict[str, Any]:
    get, put, asked = make(way, folder)
    source = memoryview(take(None, SOURCE_BYTES) or b"")
    keys = zipf(KEYS, REQUESTS).tolist()
    filler = os.urandom(VALUE_BYTES - 16)
    ordinary = None
    hits = wrong = computed = 0
    hit_ns: list[int] = []
    copies_ns: list[int] = []
    began = time.perf_counter()
    for number, key in enumerate(keys):
        third, first = divmod(number, REQUESTS // 3)
        if first == 0:
            ordinary = take(ordinary, WAVE_BYTES if third == 1 else 0)
        name = b"%08d" % key
        before = asked()
        if number % COPY_CALLS == 0:
            at = key * VALUE_BYTES % SOURCE_BYTES
            start = time.perf_counter_ns()
            value = bytes(source[at : at + VALUE_BYTES])
            copies_ns.append(time.perf_counter_ns() - start)
        start = time.perf_counter_ns()
        value = get(name)
        took_ns = time.perf_counter_ns() - start
        if value is None:
            time.sleep(MISS_SECONDS)
            computed += 1
            put(name, name + filler + name)
        else:
            hits += 1
            wrong += value[:8] != name or value[-8:] != name
            if asked() == before and number % COPY_CALLS:  # a copy a moment ago has made the next one faster
                hit_ns.append(took_ns)
    seconds = time.perf_counter() - began
    ordinary = take(ordinary, 0)
    return {"beyond_seconds": seconds - computed * MISS_SECONDS, "hits": hits / REQUESTS, "wrong": wrong,
            "hit_ns": statistics.median(hit_ns), "copy_ns": statistics.median(copies_ns or [0])}  # fmt: skip


def run(way: str) -> dict[str, Any]:
    from droppable._cgroup import MemoryCgroup

    with (
        tempfile.TemporaryDirectory(prefix="droppable-bench-") as folder,
        MemoryCgroup.create(LIMIT_BYTES + SOURCE_BYTES) as group,
    ):
        child: subprocess.Popen[str] = group.popen(
            [sys.executable, __file__, "--child", way, folder], stdout=subprocess.PIPE, text=True
        )
        output, _ = child.communicate()
        return {"oom_kills": group.oom_kills, **(json.loads(output) if output else {})}


def judge(rows: list[Row]) -> list[Goal]:
    disk = next(row for row in rows if row.way == DISK)
    goals = []
    for row in rows:
        goals.append(Goal(f"{row.way}: kills, wrong values", "0, 0", f"{row.oom_kills}, {row.wrong}",
                          row.oom_kills == row.wrong == 0))  # fmt: skip
        if row.way == DISK:
            continue
        share, more_ns = row.beyond_seconds / disk.beyond_seconds, row.hit_ns - row.copy_ns
        goals.append(Goal(f"{row.way}: time beyond, against the disk's", f"<= {MOST_SHARE}", f"{share:.2f}",
                          share <= MOST_SHARE))  # fmt: skip
        goals.append(Goal(f"{row.way}: a hit, over a copy", f"<= {MOST_MORE_NS:.0f} ns", f"{more_ns:.0f} ns",
                          more_ns <= MOST_MORE_NS))  # fmt: skip
    return goals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        way, folder = arguments.child
        print(json.dumps(play(way, Path(folder))))
        return 0
    from droppable._cgroup import CgroupUnavailableError

    ways = (DISK, THROUGH, BEHIND)
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    try:
        for number in range(arguments.rounds):
            for place in range(len(ways)):
                way = ways[(place + number) % len(ways)]
                runs[way].append(run(way))
    except CgroupUnavailableError as error:
        print(f"SKIP: {error}")
        return 0
    rows = []
    for way, made in runs.items():
        lived = [one for one in made if "hits" in one]
        medians = {name: statistics.median(one[name] for one in lived)
                   for name in ("beyond_seconds", "hits", "hit_ns", "copy_ns")}  # fmt: skip
        kills, wrong = sum(one["oom_kills"] for one in made), sum(one["wrong"] for one in lived)
        rows.append(Row(way, **medians, oom_kills=kills, wrong=wrong))
        print(f"{way:<15} beyond {medians['beyond_seconds']:.2f} s  hits {medians['hits']:.3f}"
              f"  hit {medians['hit_ns']:.0f} ns  copy {medians['copy_ns']:.0f} ns", flush=True)  # fmt: skip
    print()
    write(arguments.out, {"limit_bytes": LIMIT_BYTES, "rows": [asdict(row) for row in rows]}, judge(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
