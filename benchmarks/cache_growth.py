"""What 10^7 entries cost: bytes an entry, bytes the kernel cannot take back, time of a get and a set by size.

    python benchmarks/cache_growth.py                     two minutes and 8 GB of memory; less with --entries
    python benchmarks/cache_growth.py --out growth.json

Memory: a child in a cgroup of its own inserts values of 100 B; then the kernel is asked to take all it can. What is
left in the cgroup, less what was there when the cache held 1,000, is divided by the number of entries. Page tables
are in it. At 10^6 and 10^7 entries, beside the caches people use.

Time: one process holds a cache of 10^3 entries, one of 10^4, and so on to 10^7, and as many dicts. All are timed once
a round, in another order each round (measure.py): gets and sets of keys drawn at random, which are there. The drawn
keys are small fresh ints, the same number at each size: what grows is the cache alone. The dict beside it shows what
the processor's own caches cost: it does the same work at each size but for them.

Bias: written by those who wrote droppable. Every value in a dict here is an object of its own, as in a real one. The
machine's huge pages may serve the dicts; droppable's own memory never has them.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import Contender, Figure, Goal, figure, interleave, memory_available_bytes, write

VALUE_BYTES = 100
KEYS = 100_000
"""Drawn for the timing at each size: so many that one is not asked for again before others took its place."""
DROPPABLE, DICT = "droppable", "dict"
CACHES = {
    1_000_000: (DROPPABLE, DICT, "cachetools", "cachebox", "lru-dict"),
    10_000_000: (DROPPABLE, DICT),
}
"""Entries: the caches whose memory is measured."""
RUNS = {1_000_000: 3, 10_000_000: 1}
"""Entries: how often droppable's is measured; the median counts."""
ENTRY_BYTES = {DROPPABLE: 200, DICT: 320}
"""At most, for the check that a size fits into the machine."""
OTHERS_BYTES = 450


def value(number: int) -> bytes:
    return b"%0100d" % number


def filled(name: str, room: int) -> tuple[Callable[[int, bytes], object], object]:
    """An empty cache that takes `room` entries: its set, and itself."""
    cache: Any
    if name == DROPPABLE:
        import droppable

        cache = droppable.Cache()
        return cache.set, cache
    if name == "cachetools":
        import cachetools

        cache = cachetools.LRUCache(room)
    elif name == "cachebox":
        import cachebox

        cache = cachebox.LRUCache(room)
    elif name == "lru-dict":
        import lru

        cache = lru.LRU(room)
    else:
        cache = {}
    return cache.__setitem__, cache


# Memory: the child


def fill(name: str, entries: int) -> dict[str, Any]:
    """Inserts, then waits until the parent has had the kernel take what it can."""
    put, keep = filled(name, 2 * entries)
    for number in range(1000):
        put(entries + number, value(number))
    print(json.dumps("empty"), flush=True)
    sys.stdin.readline()
    for number in range(entries):
        put(number, value(number))
    print(json.dumps("full"), flush=True)
    sys.stdin.readline()
    return {"kept": keep is not None}


# Memory: the parent


def unpinned(name: str, entries: int) -> dict[str, float] | None:
    """Bytes an entry after the last insert, and what of them the kernel cannot take."""
    from droppable._cgroup import MemoryCgroup

    limit_bytes = (1 << 28) + entries * ENTRY_BYTES.get(name, OTHERS_BYTES)
    if limit_bytes > memory_available_bytes():
        print(f"SKIP {name}, {entries:,} entries: {limit_bytes / 2**30:.0f} GiB of memory are not free")
        return None
    with MemoryCgroup.create(limit_bytes) as group:
        command = [sys.executable, __file__, "--child", name, str(entries)]
        process: subprocess.Popen[str] = group.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        held, left = [], []
        for _ in ("empty", "full"):
            if not process.stdout.readline():
                print(f"SKIP {name}, {entries:,} entries: it ended with {process.wait()}")
                return None
            held.append(group.usage_bytes)
            left.append(squeeze(group))
            process.stdin.write("\n")
            process.stdin.flush()
        process.communicate()
    return {
        "resident_bytes_per_entry": (held[1] - left[0]) / entries,
        "left_bytes_per_entry": (left[1] - left[0]) / entries,
    }


def squeeze(group: Any) -> int:
    """Has the kernel take what it can; what is left then. The LRU has two lists, so once is not enough."""
    if (group.path / "memory.force_empty").exists():
        for _ in range(3):
            try:
                (group.path / "memory.force_empty").write_text("0")
            except OSError:
                pass  # not empty: a process is in it
    else:
        idle = 0
        while idle < 3:
            idle = 0 if group.reclaim(1 << 22) > 1 << 16 else idle + 1
    return int(group.usage_bytes)


def memory(most_entries: int) -> Iterator[dict[str, Any]]:
    for entries, names in CACHES.items():
        for name in names if entries <= most_entries else ():
            runs = RUNS[entries] if name == DROPPABLE else 1
            found = [one for _ in range(runs) if (one := unpinned(name, entries))]
            if not found:
                continue
            found.sort(key=lambda one: one["left_bytes_per_entry"])
            row = {"name": name, "entries": entries, **found[len(found) // 2],
                   "left_runs": [round(one["left_bytes_per_entry"], 2) for one in found]}  # fmt: skip
            print(
                f"{name:<12}{entries:>12,} entries{row['resident_bytes_per_entry']:8.1f} B an entry, "
                f"{row['left_bytes_per_entry']:8.2f} not droppable {row['left_runs']}",
                flush=True,
            )
            yield row


# Time


def sizes_up_to(most_entries: int) -> list[int]:
    sizes = [10**power for power in range(3, 8) if 10**power <= most_entries]
    need_bytes = 1.12 * sizes[-1] * sum(ENTRY_BYTES.values())
    while need_bytes > memory_available_bytes():
        print(f"SKIP the time at {sizes.pop():,} entries: {need_bytes / 2**30:.0f} GiB of memory are not free")
        need_bytes /= 10
    return sizes


def times(sizes: list[int], rounds: int, batch_seconds: float) -> dict[str, dict[int, dict[str, Figure]]]:
    """By operation, size, name. Gets ask for the lower half of the keys: there the values a dict holds stay its own."""
    caches = {}
    for size in sizes:
        for name in (DROPPABLE, DICT):
            put, cache = filled(name, size)
            for number in range(size):
                put(number, value(number))
            caches[name, size] = put, cache
            print(f"filled: {name}, {size:,}", flush=True)
    found: dict[str, dict[int, dict[str, Figure]]] = {}
    drawn = random.Random(1)
    for operation in ("get", "set"):
        contenders = []
        for (name, size), (put, cache) in caches.items():
            low, high = (0, size // 2) if operation == "get" else (size // 2, size)
            keys = [drawn.randrange(low, high) for _ in range(KEYS)]
            some = [value(number) for number in range(64)]
            calls = [(key, some[key % 64]) for key in keys] if operation == "set" else [(key,) for key in keys]
            call = put if operation == "set" else cache.get  # type: ignore[attr-defined]
            contenders.append(Contender(f"{name} {size}", call, calls))
        by_name = {one.name: one for one in interleave(contenders, rounds, batch_seconds)}
        found[operation] = {size: {name: by_name[f"{name} {size}"] for name in (DROPPABLE, DICT)} for size in sizes}
    return found


def judge(rows: list[dict[str, Any]], found: dict[str, dict[int, dict[str, Figure]]]) -> Iterator[Goal]:
    for entries in CACHES:
        by_name = {row["name"]: row["left_bytes_per_entry"] for row in rows if row["entries"] == entries}
        if DROPPABLE in by_name:
            others = ", ".join(f"{name} {left:.0f}" for name, left in by_name.items() if name != DROPPABLE)
            ours = by_name[DROPPABLE]
            yield Goal(f"memory not droppable, {entries:,}", "<= 1 B an entry",
                       f"{ours:.2f} B; {others}", ours <= 1)  # fmt: skip
    for operation, by_size in found.items():
        what, goal = f"time at 10^7, {operation}", "<= 2x its time at 10^4"
        if 10_000_000 not in by_size:
            yield Goal(what, goal, "10^7 entries were not filled", None)
            continue
        grown = {}
        for name in (DROPPABLE, DICT):
            small, large = by_size[10_000][name], by_size[10_000_000][name]
            pairs = zip(large.rounds_ns, small.rounds_ns, strict=True)
            ratio = figure(name, [many / few for many, few in pairs]).ns
            grown[name] = f"{ratio:.2f}x ({small.ns:,.0f} and {large.ns:,.0f} ns)", ratio
        yield Goal(what, goal, f"{grown[DROPPABLE][0]}; dict {grown[DICT][0]}", grown[DROPPABLE][1] <= 2)


def print_times(found: dict[str, dict[int, dict[str, Figure]]]) -> None:
    for operation, by_size in found.items():
        print(f"\n{operation}: ns a call (middle half)")
        for size, by_name in by_size.items():
            cells = (f"{name} {one.ns:7,.0f} ({one.low_ns:,.0f}-{one.high_ns:,.0f})" for name, one in by_name.items())
            print(f"{size:>12,}   " + "   ".join(f"{cell:<32}" for cell in cells))
    print()


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(fill(sys.argv[2], int(sys.argv[3]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000_000, help="of the largest caches (%(default)s)")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--batch-seconds", type=float, default=0.002, help="processor time of one batch, about")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    from droppable._cgroup import CgroupUnavailableError

    rows = []
    try:
        rows += memory(arguments.entries)
    except CgroupUnavailableError as error:
        print(f"SKIP the memory: {error}")
    found = times(sizes_up_to(arguments.entries), arguments.rounds, arguments.batch_seconds)
    print_times(found)
    report = {
        "rounds": arguments.rounds, "memory": rows,
        "times": {of: {size: {name: asdict(one) for name, one in by_name.items()} for size, by_name in by_size.items()}
                  for of, by_size in found.items()},
    }  # fmt: skip
    write(arguments.out, report, list(judge(rows, found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
