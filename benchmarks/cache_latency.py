"""How long a get, a miss, a set and a memoized call take, in droppable and in the caches people use instead.

    python benchmarks/cache_latency.py                     prints a table for each size, two minutes
    python benchmarks/cache_latency.py --out latency.json

Method: all caches live in one process, filled with the same keys (short str) and values: bytes of 100 and 10,000, and
NumPy arrays of 1 MB. Every cache is timed once a round, the order changes with the round; see measure.py. Keys come
in a random order. `set` writes over keys that are there. Reported: nanoseconds of processor time a call, the median
of the rounds; the ratios are medians of the rounds' ratios.

Bias: written by those who wrote droppable. The peers in memory hand out a reference to the object that was stored,
and droppable (but for arrays), lmdb, diskcache, memcached and the files make a new one; only diskcache, lmdb and the
files keep what they store after the end of the process. diskcache's waits for the disk are not counted, nor
memcached's for its answer: the processor time of its server (one thread, on a unix socket) is added instead. lmdb
opens a transaction for each call, without syncing. theine's maintenance in another thread is not counted. The peers'
maxsize is twice the number of keys: they evict nothing.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import Contender, Figure, Goal, interleave, ratio, write
from peers import COPY, DROPPABLE, Peer, make_value, peers

SIZES = {100: 10_000, 10_000: 1_000, 1_000_000: 16}
"""Bytes of a value: number of keys."""
OPERATIONS = ("get", "miss", "set", "decorator")


def contenders(operation: str, all_peers: list[Peer], keys: list[str], value: Any) -> Iterator[Contender]:
    for peer in all_peers:
        mine = [peer.key(key) for key in keys]
        if operation == "decorator" and peer.decorate:
            function = peer.decorate(lambda argument: value)
            for key in keys:
                function(key)
            yield Contender(peer.name, function, [(key,) for key in keys])
        elif operation == "get" and peer.get:
            yield Contender(peer.name, peer.get, [(key,) for key in mine], peer.elsewhere_ns)
        elif operation == "miss" and peer.get:
            yield Contender(peer.name, peer.get, [(peer.key(f"no-{key}"),) for key in keys], peer.elsewhere_ns)
        elif operation == "set" and peer.set:
            yield Contender(peer.name, peer.set, [(key, value) for key in mine], peer.elsewhere_ns)


def measure_size(size_bytes: int, rounds: int, batch_seconds: float) -> dict[str, list[Figure]]:
    keys = [f"key-{number}" for number in range(SIZES[size_bytes])]
    random.Random(0).shuffle(keys)
    value = make_value(size_bytes)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="droppable-bench-")))
        all_peers = list(peers(len(keys), size_bytes, directory, stack))
        for peer in all_peers:
            if peer.set:
                for key in keys:
                    peer.set(peer.key(key), value)
        return {
            operation: interleave(list(contenders(operation, all_peers, keys, value)), rounds, batch_seconds)
            for operation in OPERATIONS
        }


def print_table(size_bytes: int, figures: dict[str, list[Figure]]) -> None:
    cells = {operation: {one.name: one for one in of_all} for operation, of_all in figures.items()}
    names = list(dict.fromkeys(one.name for of_all in figures.values() for one in of_all))
    print(f"\n{size_bytes:,} B: ns a call (middle half)")
    print(f"{'':<30}" + "".join(f"{operation:>30}" for operation in OPERATIONS))
    for name in names:
        row = (cells[operation].get(name) for operation in OPERATIONS)
        print(f"{name:<30}" + "".join(
            f"{f'{one.ns:,.0f} ({one.low_ns:,.0f}-{one.high_ns:,.0f})' if one else '-':>30}" for one in row
        ))  # fmt: skip


def compare(
    what: str, goal: str, limit: float, figures: list[Figure], peer: str
) -> Goal:  # fmt: skip
    by_name = {one.name: one for one in figures}
    if peer not in by_name:
        return Goal(what, goal, f"{peer} is not installed", None)
    ours, theirs = by_name[DROPPABLE], by_name[peer]
    low, middle, high = ratio(ours, theirs)
    measured = f"{ours.ns:,.0f} ns; {peer} {theirs.ns:,.0f} ns; ratio {middle:.2f} ({low:.2f} to {high:.2f})"
    return Goal(what, goal, measured, middle <= limit)


def judge(all_figures: dict[int, dict[str, list[Figure]]]) -> list[Goal]:
    small, middle, large = (all_figures[size] for size in SIZES)
    array_ns = next(one.ns for one in large["get"] if one.name == DROPPABLE)
    peer = "cachetools LRUCache"
    return [
        compare("get, hit, 100 B bytes", "<= cachetools' .get", 1.0, small["get"], peer),
        compare("get, hit, 10 KB bytes", "<= 1.2x dict + memcpy", 1.2, middle["get"], COPY),
        Goal("get, 1 MB array, hot", "<= 1 us, zero-copy", f"{array_ns:,.0f} ns", array_ns <= 1000),
        compare("set, 100 B", "<= cachetools", 1.0, small["set"], peer),
        compare("decorator hit, one str argument", "<= cachetools' @cached", 1.0, small["decorator"], peer),
        compare("decorator hit, one str argument", "<= half of cachetools' @cached", 0.5, small["decorator"], peer),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--batch-seconds", type=float, default=0.002, help="processor time of one batch, about")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    figures = {}
    for size_bytes in SIZES:
        figures[size_bytes] = measure_size(size_bytes, arguments.rounds, arguments.batch_seconds)
        print_table(size_bytes, figures[size_bytes])
    print()
    goals = judge(figures)
    sizes = {
        size: {name: [asdict(one) for one in of_all] for name, of_all in ops.items()} for size, ops in figures.items()
    }
    write(arguments.out, {"rounds": arguments.rounds, "sizes": sizes}, goals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
