"""How long get_many() of 100 keys takes, beside 100 calls of get(): in caches of 10^3, 10^5 and 10^6 values of 100 B.

    python benchmarks/cache_many.py [--rounds N] [--sizes 1000 100000 1000000]

The calls of get() stand in a loop that throws their values away, and, in the last column, in a comprehension that
makes the dict that get_many() makes. Keys are str of some ten letters, drawn at random without a skew, and hashed
before. Each round times all three, in another order each time. The figures are medians of the rounds' thread times, for
a hundred keys; the ratios are medians of the rounds' ratios.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

import droppable

KEYS = 100
BATCHES = 100  # of a round and a way
WARM = 10  # of those, once before: they bring the code into the processor's caches


def one_by_one(cache: droppable.Cache[str, bytes], keys: list[str]) -> None:
    get = cache.get
    for key in keys:
        get(key)


def into_dict(cache: droppable.Cache[str, bytes], keys: list[str]) -> dict[str, bytes | None]:
    get = cache.get
    return {key: get(key) for key in keys}


def at_once(cache: droppable.Cache[str, bytes], keys: list[str]) -> dict[str, bytes]:
    return cache.get_many(keys)


def timed_us(
    call: Callable[[droppable.Cache[str, bytes], list[str]], object],
    cache: droppable.Cache[str, bytes],
    batches: list[list[str]],
) -> float:
    begin = time.thread_time_ns()
    for keys in batches:
        call(cache, keys)
    return (time.thread_time_ns() - begin) / 1000 / len(batches)


def measure(size: int, rounds: int) -> None:
    names = [f"name {i}" for i in range(size)]
    cache: droppable.Cache[str, bytes] = droppable.Cache()
    for name in names:
        hash(name)
        cache.set(name, bytes(range(1, 101)))
    ways = (one_by_one, into_dict, at_once)
    times: dict[str, list[float]] = {way.__name__: [] for way in ways}
    for at in range(rounds):
        for way in ways[at % 3 :] + ways[: at % 3]:
            batches = [random.choices(names, k=KEYS) for _ in range(BATCHES)]
            timed_us(way, cache, batches[:WARM])
            times[way.__name__].append(timed_us(way, cache, batches))
    medians = [statistics.median(times[way.__name__]) for way in ways]
    ratios = [
        statistics.median(many / one for many, one in zip(times["at_once"], times[way.__name__], strict=True))
        for way in (one_by_one, into_dict)
    ]
    print(f"{size:>10,}{medians[0]:>12.1f}{medians[2]:>12.1f}{ratios[0]:>10.2f}{ratios[1]:>16.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="get_many() of 100 keys beside 100 calls of get().")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 100_000, 1_000_000])
    options = parser.parse_args()
    random.seed(1)
    print(f"{'entries':>10}{'get, us':>12}{'get_many':>12}{'ratio':>10}{'to a dict of':>16}")
    for size in options.sizes:
        measure(size, options.rounds)


if __name__ == "__main__":
    main()
