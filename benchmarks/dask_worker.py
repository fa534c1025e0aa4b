"""Workers of Dask whose caches grow fast: are they ended or paused for it? And what a look at their memory takes.

    python benchmarks/dask_worker.py [--rounds N] [--only looks|workers]

`looks`: CPU time of a look at the page tables of this process, with a cache of 1, 2 and 3 GB. `workers`: rounds of a
LocalCluster of one worker, whose limit is 300 MB, and of tasks whose results are kept by `memoize`, or are not. Each
task holds its result for a moment only. Figures for docs/adapters-data.md. Needs `requirements/adapters.txt`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import numpy
from distributed import Client, LocalCluster

import droppable
from droppable.adapters._dask_memory import ProcessFigures
from droppable.adapters.dask import memoize, register

LIMIT = "300MB"
TASKS = ((20, 60, 1), (10, 300, 2))
"""Megabytes of a result, results, threads."""


def make(number: int, megabytes: int) -> Any:
    return numpy.full(megabytes << 20, number % 250 + 1, dtype="u1")


def look_milliseconds() -> list[tuple[float, float]]:
    """Gigabytes resident, and milliseconds of CPU: the median of 9."""
    figures = ProcessFigures(os.getpid())
    cache: droppable.Cache[Any, Any] = droppable.Cache()
    rows = []
    for gigabytes in (1, 2, 3):
        for number in range(1024):
            cache[gigabytes, number] = bytes(1 << 20)
        spent_seconds = statistics.median(figures.look().spent_seconds for _ in range(9))
        rows.append((figures.resident_bytes() / (1 << 30), 1e3 * spent_seconds))
    cache.close()
    return rows


def fill(megabytes: int, tasks: int, threads: int, *, is_kept: bool) -> tuple[int, int, int, float]:
    """How often the worker was ended and paused, how often its cache was asked in vain, and seconds."""
    function = memoize(make) if is_kept else make

    def task(number: int) -> int:
        return int(function(number, megabytes)[0])

    with (
        LocalCluster(n_workers=1, threads_per_worker=threads, memory_limit=LIMIT, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        register(client)
        began = time.monotonic()
        assert client.gather(client.map(task, range(tasks))) == [number % 250 + 1 for number in range(tasks)]
        took = time.monotonic() - began
        (misses,) = client.run(lambda: droppable.named("dask:").stats().misses).values()
        pauses = sum("Pausing worker" in line for lines in client.get_worker_logs().values() for _, line in lines)
        return len(client.get_events("worker-restart-memory")), pauses, misses, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("looks", "workers"))
    arguments = parser.parse_args()
    if arguments.only != "workers":
        print("| resident, GB | CPU of a look, ms |\n|---|---|")
        for gigabytes, milliseconds in look_milliseconds():
            print(f"| {gigabytes:.1f} | {milliseconds:.0f} |")
    if arguments.only != "looks":
        print("| results | kept | ended | paused | misses | seconds |\n|---|---|---|---|---|---|")
        for megabytes, tasks, threads in TASKS:
            for is_kept in (True, False):
                rounds = [fill(megabytes, tasks, threads, is_kept=is_kept) for _ in range(arguments.rounds)]
                ended, paused, misses, took = zip(*rounds, strict=True)
                print(
                    f"| {tasks} of {megabytes} MB, {threads} thread{'s'[: threads - 1]} | {'yes' if is_kept else 'no'} "
                    f"| {sum(ended)} | {sum(paused)} | {sum(misses)} | {statistics.median(took):.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
