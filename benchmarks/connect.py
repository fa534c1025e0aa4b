"""How long look-ups of droppable.connect take, beside pymemcache at the same socket, and a copy within the process.

    python benchmarks/connect.py             prints a table for docs/connect.md
    python benchmarks/connect.py --rounds 21  sooner
    python benchmarks/connect.py --own       processor time of the client, without what the server does for it

All calls take turns in each round, in another order each time; a figure is the median of the rounds. The clock is wall
time: what a server does for a client is time that the client waits. A turn is short, so that few of them are
interrupted by other programs. The keys that are "of 20,000" are chosen at random, so that nearly each of them lies in a
page of its own; the 1,000 others lie in some 40 pages. csrc/tests/bench_reads.c shows what the bare calls cost.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
from core_programs import core_program
from pymemcache.client.base import Client

import droppable
from droppable.cli._serve import server_program

KEYS = 1000
FAR_KEYS = 20_000
BATCH_SECONDS = 0.001


def timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds a call, over as many calls as take BATCH_SECONDS."""
    count, spent = 1, 0.0
    while spent < BATCH_SECONDS:
        count *= 2
        begin = clock()
        for _ in range(count):
            call()
        spent = clock() - begin
    return spent / count


def measure(path: str, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Medians in microseconds, by name."""
    cache = droppable.connect(path, strict=True)
    asking = droppable.connect(path, strict=True, attach=False)
    with_near = droppable.connect(path, strict=True, near=True)
    own: droppable.Cache[str, Any] = droppable.Cache()
    peer = Client(path)
    array = numpy.random.default_rng(1).random(125_000)
    for number in range(KEYS):
        cache.set(f"short{number}", b"v" * 100)
        peer.set(f"short{number}", b"v" * 100)
    for number in range(20):
        cache.set(f"long{number}", b"v" * 10_000)
        peer.set(f"long{number}", b"v" * 10_000)
        cache.set(f"array{number}", array + number)
        peer.set(f"array{number}", (array + number).tobytes())
        own.set(f"array{number}", array + number)
    chosen = random.Random(1)

    def key(kind: str, most: int) -> str:
        return f"{kind}{chosen.randrange(most)}"

    hundred = [f"short{number}" for number in range(100)]
    for number in range(FAR_KEYS):
        cache.set(f"far{number}", b"v" * 100)
    far = [f"far{number}" for number in chosen.sample(range(FAR_KEYS), 100)]
    target = numpy.empty_like(array)
    calls: dict[str, Callable[[], object]] = {
        "choosing a key": lambda: key("short", KEYS),
        "get, 100 B": lambda: cache.get(key("short", KEYS)),
        "get, 100 B, asked": lambda: asking.get(key("short", KEYS)),
        "get, 100 B, pymemcache": lambda: peer.get(key("short", KEYS)),
        "get, 10 KB": lambda: cache.get(key("long", 20)),
        "get, 10 KB, pymemcache": lambda: peer.get(key("long", 20)),
        "get, array of 1 MB": lambda: cache.get(key("array", 20)),
        "get, array of 1 MB, near": lambda: with_near.get(key("array", 20)),
        "get, array of 1 MB, a Cache": lambda: own.get(key("array", 20)),
        "get, 1 MB, pymemcache": lambda: peer.get(key("array", 20)),
        "copy of that array, new memory": lambda: array.copy(),
        "copy of that array, same memory": lambda: numpy.copyto(target, array),
        "get_many of 100": lambda: cache.get_many(hundred),
        "100 times get": lambda: [cache.get(one) for one in hundred],
        "get_many of 100 of 20,000": lambda: cache.get_many(far),
        "100 times get of 20,000": lambda: [cache.get(one) for one in far],
        "set, 100 B": lambda: cache.set(key("short", KEYS), b"w" * 100),
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds):
        names = list(calls)
        random.Random(round_).shuffle(names)
        for name in names:
            found[name].append(timed(calls[name], clock) * 1e6)
    choice = statistics.median(found.pop("choosing a key"))
    choosing = ("get,", "set,")
    return {
        name: statistics.median(all_) - (choice if name.startswith(choosing) else 0) for name, all_ in found.items()
    }


def main() -> None:
    """Starts a server, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=201)
    parser.add_argument(
        "--own", action="store_true", help="processor time of the client alone: for a machine that others use meanwhile"
    )
    arguments = parser.parse_args()
    program = server_program()
    if program is None:
        raise SystemExit("droppable-server was not installed with this package")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "socket")
        command = [str(program), "--unix", path, "--max-value", "4M"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            server.stdout.readline()
            try:
                figures = measure(path, arguments.rounds, time.thread_time if arguments.own else time.perf_counter)
            finally:
                server.terminate()
    print("| call | microseconds |\n|---|---|")
    for name, microseconds in figures.items():
        print(f"| {name} | {microseconds:.1f} |")
    print()
    for one, other in (
        ("get, 100 B", "get, 100 B, pymemcache"),
        ("get, array of 1 MB", "copy of that array, new memory"),
        ("get, array of 1 MB", "copy of that array, same memory"),
        ("get, array of 1 MB, near", "get, array of 1 MB, a Cache"),
        ("get_many of 100", "100 times get"),
        ("get_many of 100 of 20,000", "100 times get of 20,000"),
    ):
        print(f"{one} / {other}: {figures[one] / figures[other]:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        bare = core_program("bench_reads", Path(folder))
    if bare is not None:
        print("\nThe bare calls of the system, from C, microseconds of processor time:", flush=True)
        subprocess.run([bare], check=True)


if __name__ == "__main__":
    main()
