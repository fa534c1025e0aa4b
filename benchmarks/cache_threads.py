"""Throughput of two threads over that of one: on the C core alone, and from Python.

    python benchmarks/cache_threads.py                     two minutes; builds a program of the C core
    python benchmarks/cache_threads.py --out threads.json

C core: csrc/tests/bench_threads.c, one thread a processor, all on one cache, keys drawn at random: gets alone, one
set in ten, sets alone. Rounds with one thread and with two take turns, each in a process of its own; the ratio is the
median over rounds of the same number. Python: threads call Cache.get and Cache.set. With the GIL their calls run side
by side only where it is released, which is while 32 KiB or more are copied; on a free-threaded Python everywhere.

A rate is calls a second of time in which a thread did not wait for a processor that other programs had (run_delay in
schedstat): waits for a lock are in it. On a quiet machine it is what the clock says.

Bias: written by those who wrote droppable. Keys are drawn uniformly, so that threads seldom want the same shard. Two
threads also share the processor's memory bus, which no lock can help: large values show that.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from core_programs import core_program
from measure import Goal, write
from stalls import run_delay_reader

KEYS = {100: 10_000, 10_000: 500, 1_000_000: 20}
"""Bytes of a value: number of keys."""
MIXES = {"get": 0, "1 set in 10": 100, "set": 1000}
"""Sets in 1,000 calls."""
PYTHON_SIZES = (10_000, 100_000, 1_000_000)
THREADS = 2
GOAL = 1.6


@dataclass(frozen=True)
class Row:
    """Calls a second, all threads together; `ratio`: the median over rounds, and what holds the middle half."""

    where: str
    mix: str
    value_bytes: int
    one: float
    two: float
    ratio: float
    low: float
    high: float
    clock_ratio: float


def row(where: str, mix: str, value_bytes: int, rounds: Sequence[tuple[list[float], list[float]]]) -> Row:
    """`rounds`: of [own rate, rate by the clock] with one thread and with two."""
    ratios = [two[0] / one[0] for one, two in rounds]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Row(
        where, mix, value_bytes, statistics.median(one[0] for one, _ in rounds),
        statistics.median(two[0] for _, two in rounds), middle, low, high,
        statistics.median(two[1] / one[1] for one, two in rounds),
    )  # fmt: skip


# The C core


def core_round(program: Path, value_bytes: int, sets: int, threads: int, milliseconds: int) -> list[float]:
    command = [program, KEYS[value_bytes], value_bytes, sets, threads, milliseconds, 1]
    lines = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout.splitlines()
    calls, _, seconds, rate = (float(word) for word in lines[-1].split())
    return [rate, calls / seconds]


# Python


def python_round(value_bytes: int, sets: int, threads: int, milliseconds: int) -> list[float]:
    import droppable

    keys = KEYS.get(value_bytes, 200)
    value = random.Random(0).randbytes(value_bytes)
    rates, calls = [0.0] * threads, [0] * threads
    with droppable.Cache() as cache:
        for key in range(keys):
            cache[key] = value
        start = threading.Barrier(threads)

        def work(number: int) -> None:
            drawn = random.Random(number)
            draws = [(drawn.randrange(keys), drawn.randrange(1000) < sets) for _ in range(1000)]
            run_delay_ns, done = run_delay_reader(), 0
            start.wait()
            waited_ns, began = run_delay_ns(), time.perf_counter()
            deadline = began + milliseconds / 1e3
            while (now := time.perf_counter()) < deadline:
                for key, is_set in draws[:: 1 if value_bytes < 100_000 else 50]:
                    done += 1
                    if is_set:
                        cache.set(key, value)
                    else:
                        cache.get(key)
            now = time.perf_counter()
            rates[number] = done / max(1e-6, now - began - (run_delay_ns() - waited_ns) / 1e9)
            calls[number] = done

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - began
    return [sum(rates), sum(calls) / seconds]


def measure(rounds: int, milliseconds: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="droppable-bench-") as directory:
        program = core_program("bench_threads", Path(directory))
    for value_bytes in KEYS if program else ():
        for mix, sets in MIXES.items():
            assert program
            pairs = [
                tuple(core_round(program, value_bytes, sets, threads, milliseconds) for threads in (1, THREADS))
                for _ in range(rounds)
            ]
            yield row("C core", mix, value_bytes, [(one, two) for one, two in pairs])
    free = bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and not getattr(sys, "_is_gil_enabled", lambda: True)()
    where = "Python, free-threaded" if free else "Python, with the GIL"
    for value_bytes in (100, *PYTHON_SIZES) if free else PYTHON_SIZES:
        for mix, sets in MIXES.items():
            some = [
                tuple(python_round(value_bytes, sets, threads, milliseconds) for threads in (1, THREADS))
                for _ in range(rounds)
            ]
            yield row(where, mix, value_bytes, [(one, two) for one, two in some])


def judge(rows: Sequence[Row]) -> Iterator[Goal]:
    for one in rows:
        if one.where != "C core":
            continue
        measured = (
            f"{one.ratio:.2f}x ({one.low:.2f} to {one.high:.2f}); {one.one / 1e3:,.0f} and {one.two / 1e3:,.0f} k/s"
        )
        what = f"threads, C core, {one.value_bytes:,} B, {one.mix}"
        yield Goal(what, ">= 1.6x with 2 threads", measured, one.ratio >= GOAL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--milliseconds", type=int, default=150, help="of a round (%(default)s)")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) < THREADS:
        print(f"SKIP: {THREADS} threads need {THREADS} processors")
        return 0
    rows = []
    for one in measure(max(2, arguments.rounds), arguments.milliseconds):
        rows.append(one)
        print(
            f"{one.where:<22}{one.value_bytes:>10,} B  {one.mix:<12} {one.one / 1e3:>10,.1f} k/s, two threads "
            f"{one.two / 1e3:>10,.1f} k/s: {one.ratio:.2f}x ({one.low:.2f} to {one.high:.2f}); by the clock "
            f"{one.clock_ratio:.2f}x",
            flush=True,
        )
    write(arguments.out, {"threads": THREADS, "rows": [asdict(one) for one in rows]}, list(judge(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
